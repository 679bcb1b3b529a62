"""Segments kept in memory between two fits, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict

from rlhp.frames import nbytes
from rlhp.types import Segment


class SegmentCache:
    """The segments used last. `limit` in bytes of arrays; a segment larger than that is not kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[str, Segment] = OrderedDict()

    def get(self, segment: str) -> Segment | None:
        """The segment with this id, if it is kept."""
        if segment in self._kept:
            self._kept.move_to_end(segment)
        return self._kept.get(segment)

    def put(self, segment: Segment) -> None:
        """Keep one more, and let go of those not used for longest."""
        if segment.id in self._kept:
            return
        self._kept[segment.id] = segment
        self._size += segment_bytes(segment)
        while self._size > self._limit:
            self._size -= segment_bytes(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self._size = 0


def segment_bytes(segment: Segment) -> int:
    """Size of its arrays, of stacked pictures each frame once."""
    arrays = [*segment.obs.values(), segment.actions, segment.env_reward, segment.predicted_reward, segment.state]
    return sum(nbytes(array) for array in arrays if array is not None)
