"""Stacks of pictures whose pictures are kept once: [T, C, H, W] as the frames they were
stacked of, and back.

A policy sees the last C frames, so of two stacks one step apart all but one frame are
the same. Whatever is kept, sent or written for longer than a moment is kept as frames;
a stack is a view of them, built where it is looked at.

    frames, first = unstack(stacks)           # exact, whatever was stacked, and however
    stacks = restack(frames, first, depth=4)  # a view; a copy where a new episode began

Shapes: N environments, T rows, C frames per stack, F frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array = NDArray[Any]


def is_stack(dtype: Any, shape: tuple[int, ...]) -> bool:
    """Whether one observation of this dtype and shape is kept as frames: uint8 [C, H,
    W].
    """
    return np.dtype(dtype) == np.uint8 and len(shape) == 3


def unstack(stacks: Array) -> tuple[Array, Array]:
    """[T, C, H, W] -> frames [F, H, W] and, for each row, the index [T] of the first
    frame of its stack.

    A row that continues the one before adds one frame, any other row its C. What was
    built by `restack` is not searched through: it still lies in its frames.
    """
    rows, depth = stacks.shape[:2]
    if slides(stacks):
        frames = as_strided(
            stacks, (rows + depth - 1, *stacks.shape[2:]), stacks.strides[1:], writeable=False
        )
        return frames, np.arange(rows)
    follows = np.zeros(rows, bool)
    for row in range(1, rows):
        follows[row] = np.array_equal(stacks[row, :-1], stacks[row - 1, 1:])
    first = np.cumsum(np.where(follows, 1, depth)) - depth
    frames = np.empty((int(first[-1]) + depth, *stacks.shape[2:]), stacks.dtype)
    for row in range(rows):
        start = depth - 1 if follows[row] else 0
        frames[first[row] + start : first[row] + depth] = stacks[row, start:]
    return frames, first


def restack(frames: Array, first: Array, *, depth: int) -> Array:
    """The inverse of `unstack`: [T, C, H, W], read-only where it is a view; ValueError
    for an index that is none.
    """
    if len(first) == 0 or first.min() < 0 or first.max() + depth > len(frames):
        raise ValueError(
            f"stacks of {depth} of {len(frames)} frames cannot begin at {first[:9].tolist()}"
        )
    if (np.diff(first) == 1).all():
        return slide(frames[first[0] : first[-1] + depth], depth=depth)
    return frames[first[:, None] + np.arange(depth)]


def join(parts: Sequence[Array]) -> Array:
    """Parts [T_i, C, H, W] of one run of rows as one, frames kept once; what went
    before is not kept alive.
    """
    depth = parts[0].shape[1]
    frames: list[Array] = []
    first: list[Array] = []
    count, before = 0, None
    for part in parts:
        own, at = unstack(part)
        follows = before is not None and np.array_equal(part[0, :-1], before[1:])
        known = depth - 1 if follows else 0
        frames.append(own[known:])
        first.append(at + count - known)
        count, before = count + len(own) - known, part[-1]
    return restack(np.concatenate(frames), np.concatenate(first), depth=depth)


def slide(frames: Array, *, depth: int) -> Array:
    """[..., F, H, W] -> [..., F - C + 1, C, H, W]: each frame with those before it, a
    read-only view.
    """
    *lead, count, height, width = frames.shape
    *outer, step, down, right = frames.strides
    shape, strides = (
        (*lead, count - depth + 1, depth, height, width),
        (*outer, step, step, down, right),
    )
    return as_strided(frames, shape, strides, writeable=False)


def slides(stacks: Array) -> bool:
    """Whether these [..., T, C, H, W] are such a view already."""
    return stacks.ndim >= 4 and stacks.shape[-4] > 1 and stacks.strides[-4] == stacks.strides[-3]


def nbytes(array: Array) -> int:
    """Bytes that this array keeps: of a view of frames, each frame once."""
    if not slides(array):
        return array.nbytes
    rows, depth = array.shape[-4:-2]
    kept: int = array.nbytes // (rows * depth) * (rows + depth - 1)
    return kept


class FramePickle:
    """An array on its way to another process: of a view of frames each frame goes once,
    and a view arrives.
    """

    def __init__(self, array: Array) -> None:
        self._array = array

    def __reduce__(self) -> tuple[Any, ...]:
        array = self._array
        if not slides(array) or array.shape[-3] == 1:
            return np.asarray, (array,)
        *lead, rows, depth = array.shape[:-2]
        shape = (*lead, rows + depth - 1, *array.shape[-2:])
        frames = as_strided(
            array, shape, (*array.strides[: len(lead) + 1], *array.strides[-2:]), writeable=False
        )
        return partial(slide, depth=depth), (np.ascontiguousarray(frames),)


class FrameColumn:
    """Stacks [N, C, H, W] that come row by row, each frame kept once."""

    def __init__(self, stacks: Array, *, room: int) -> None:
        """`stacks` is the first row; there is `room` for that many more before memory
        has to be taken anew.
        """
        count, depth, *size = stacks.shape
        self._depth = depth
        self._every = np.arange(count)
        self._frames = np.empty((count, depth + room, *size), stacks.dtype)
        self._frames[:, :depth] = stacks
        self._stop = np.full(count, depth)
        """[N] one past each environment's newest frame."""
        self._first = [np.zeros(count, np.int64)]
        self._last = stacks

    def add(self, stacks: Array) -> None:
        """The next row."""
        follows = (_rows(stacks[:, :-1]) == _rows(self._last[:, 1:])).all(1)
        if self._stop.max() + self._depth > self._frames.shape[1]:
            self._frames = np.concatenate([self._frames, np.empty_like(self._frames)], 1)
        self._frames[self._every[follows], self._stop[follows]] = stacks[follows, -1]
        self._stop[follows] += 1
        for env in self._every[~follows]:
            at = int(self._stop[env])
            self._frames[env, at : at + self._depth] = stacks[env]
            self._stop[env] += self._depth
        self._first.append(self._stop - self._depth)
        self._last = stacks

    def stacks(self) -> Array:
        """All rows [N, T, C, H, W]: a view while every row continued the one before,
        else a copy.
        """
        first = np.stack(self._first, axis=1)
        if (np.diff(first) == 1).all():
            return slide(self._frames[:, : int(self._stop[0])], depth=self._depth)
        stacked: Array = self._frames[
            self._every[:, None, None], first[..., None] + np.arange(self._depth)
        ]
        return stacked


def _rows(stacks: Array) -> Array:
    """[N, C, H, W] -> [N, X] that are equal where the stacks are; eight pixels at a
    time where that goes.
    """
    rows: Array = stacks.reshape(len(stacks), -1)
    eights = rows.dtype == np.uint8 and rows.shape[1] % 8 == 0 and rows.strides[1] == 1
    words: Array = rows.view(np.uint64) if eights else rows
    return words
