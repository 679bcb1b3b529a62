"""How this process uses memory and floating point: what it takes, that freed memory
stays with it, and that numbers too small for a normal float are zero.

A gradient step of the reward ensemble takes and frees some thirty arrays of a few
megabytes. The C library gives such arrays back to the kernel at once and gets them
anew, page by page: thousands of page faults per step, a fifth of its time. Within these
limits it keeps them.

Some processors add and multiply denormals (numbers too small for a normal float) a
hundred times as slowly; gradients of confidently answered pairs are such numbers.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Their numbers in glibc's malloc.h."""
KEPT_BYTES = 256 << 20
LARGEST_KEPT_BYTES = 32 << 20
"""As much as glibc allows: what is larger still goes back."""


def keep_freed_memory() -> bool:
    """Tell glibc's allocator, for this whole process; False where the C library is
    another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_KEPT_BYTES)) and bool(
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
    )


def resident_mb(process: int | str = "self") -> float:
    """Megabytes of memory that are this process's own, or another's of that id; NaN
    where the system does not tell.

    What it shares with others, as pages of Ray's object store that were looked at, is
    not counted.
    """
    try:
        _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text().split()
    except (OSError, ValueError):
        return math.nan
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 1e6


def flushes() -> bool:
    """Whether this thread takes them for zeros."""
    return float(torch.tensor(1e-38) * 0.01) == 0


@contextmanager
def flushed() -> Iterator[None]:
    """Zeros, in this thread, until the end of the block; then as before: it is the
    caller's thread, not ours.
    """
    before = flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
