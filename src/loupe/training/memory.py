"""Keeping freed memory in the process, which training needs: it frees and takes the same gigabyte in each step."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc's allocator not to hand freed memory back to the system: whether that was possible.

    Otherwise each large tensor is mapped anew, and the system clears its pages one fault at a time: on a CPU that can
    cost as much as the arithmetic. Another C library (musl, macOS, Windows) is left as it is.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    values = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 64 * 2**20}  # -1: never, however much is free
    accepted = [mallopt(option, value) == 1 for option, value in values.items()]
    return all(accepted)
