"""The observations of all preferences, as rows of numbers or as pictures of which each frame is kept once.

Steps of a segment share frames: of a stack of four, three were in the stack before. So frames lie in one tensor and
a stack is four places in it, put together when a minibatch is (`rlhp.frames` on a GPU).

Shapes: N preferences, K steps of the longest segment, O observation as a row, C x H x W pictures; the axis of size 2
is first, second.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rlhp.frames import unstack
from rlhp.types import Array

FRAMES_AT_FIRST = 1024


class Rows:
    """[N, 2, K, O] float32, zero where a short segment was padded."""

    def __init__(self, size: int, *, device: torch.device) -> None:
        self._rows = torch.zeros(0, 2, 0, size, device=device)

    def grow(self, room: int, *, steps: int) -> None:
        """Make room for this many preferences of this many steps."""
        # zeros, not NaN: padded steps are masked in the loss, but zero times NaN would reach the gradient
        old, self._rows = self._rows, self._rows.new_zeros(room, 2, steps, self._rows.shape[3])
        self._rows[: len(old), :, : old.shape[2]] = old

    def put(self, n: int, side: int, rows: Array) -> None:
        """Take in the rows [k, O] of one segment."""
        self._rows[n, side, : len(rows)] = torch.tensor(rows, device=self._rows.device)

    def take(self, at: Tensor) -> Tensor:
        """[*, 2, K, O] of the preferences in `at` [*]."""
        return self._rows[at]


class Pictures:
    """[N, 2, K, C, H, W] uint8, where a short segment was padded its last picture again."""

    def __init__(self, picture: tuple[int, int, int], *, device: torch.device) -> None:
        channels, *size = picture
        self._frames = torch.zeros(FRAMES_AT_FIRST, *size, dtype=torch.uint8, device=device)
        self._places = torch.zeros(0, 2, 0, channels, dtype=torch.int64, device=device)
        self._used = 0

    def grow(self, room: int, *, steps: int) -> None:
        """Make room for this many preferences of this many steps."""
        old, self._places = self._places, self._places.new_zeros(room, 2, steps, self._places.shape[3])
        self._places[: len(old), :, : old.shape[2]] = old
        if old.shape[2]:
            self._places[: len(old), :, old.shape[2] :] = old[:, :, -1:]

    def put(self, n: int, side: int, rows: Array) -> None:
        """Take in the pictures [k, C, H, W] of one segment."""
        frames, first = unstack(rows)
        end = self._used + len(frames)
        if end > len(self._frames):
            more = self._frames.new_zeros(max(2 * len(self._frames), end), *self._frames.shape[1:])
            more[: self._used] = self._frames[: self._used]
            self._frames = more
        self._frames[self._used : end] = torch.tensor(frames, device=self._frames.device)
        places = first[:, None] + np.arange(rows.shape[1])
        found = torch.tensor(places, device=self._places.device) + self._used
        self._places[n, side, : len(rows)] = found
        self._places[n, side, len(rows) :] = found[-1]
        self._used = end

    def take(self, at: Tensor) -> Tensor:
        """[*, 2, K, C, H, W] of the preferences in `at` [*]."""
        return self._frames[self._places[at]]
