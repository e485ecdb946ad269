"""How every stage ends: well, or with one clear line for a person instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps

from loupe.errors import InputError


def stage(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a stage's `main`: mistakes in data or parameters are printed and end it with code 1, Ctrl-C with 130."""

    @wraps(main)
    def run() -> None:
        try:
            main()
        except (InputError, FloatingPointError, OSError) as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            print("interrupted: nothing half-written was left behind", file=sys.stderr)
            sys.exit(130)

    return run
