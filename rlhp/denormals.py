"""Numbers too small for a normal float, which some processors add and multiply a hundred times as slowly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def flushes() -> bool:
    """Whether this thread takes them for zeros."""
    return float(torch.tensor(1e-38) * 0.01) == 0


@contextmanager
def flushed() -> Iterator[None]:
    """Zeros, in this thread, until the end of the block; then as before: it is the caller's thread, not ours."""
    before = flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
