"""Which failures may pass by themselves, and how long to wait for that: keyword arguments of Prefect's tasks."""

from __future__ import annotations

import os
from typing import Any

from flows.workspace import UnreachableError

SECONDS = "LOUPE_RETRY_SECONDS"  # before each further attempt; a test, or a flaky network, may want others
DEFAULT = "10,60,300"


def may_pass(task: object, task_run: object, state: Any) -> bool:
    """Whether a failed task is worth another attempt: a remote could not be reached. Nothing else mends itself."""
    return isinstance(state.result(raise_on_failure=False), UnreachableError)


def delays() -> list[float]:
    """Seconds before the first, second ... further attempt."""
    return [float(part) for part in os.environ.get(SECONDS, DEFAULT).split(",") if part.strip()]


RETRIES: dict[str, Any] = {
    "retries": len(delays()),
    "retry_delay_seconds": delays(),
    "retry_condition_fn": may_pass,
}
