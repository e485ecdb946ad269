"""Work on many pictures with all cores, where the outcomes must come in order and memory must not grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def in_order(work: Callable[[Item], Outcome], items: Iterable[Item], workers: int, ahead: int) -> Iterator[Outcome]:
    """`work` of each of `items` by so many threads, in the order of the items, at most `ahead` of them waiting.

    Items are taken as they are needed, by the caller's thread. What `work` raises is raised at its turn, and work that
    has not begun is then dropped.
    """
    waiting: deque[Future[Outcome]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
