"""Finds real processes by what they were given, and ends them, whatever a test did."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import psutil


@contextlib.contextmanager
def marked() -> Iterator[str]:
    """A value for LOUPE_RUN_ID; afterwards every process that carries it is killed."""
    mark = f"test-{uuid4()}"
    try:
        yield mark
    finally:
        for process in living(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def living(mark: str) -> list[int]:
    """All processes but this one whose environment has LOUPE_RUN_ID=mark; zombies are dead."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("LOUPE_RUN_ID") == mark:
                found.append(process.pid)
    return found


def wait_for(condition: Callable[[], object], seconds: float = 20) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
