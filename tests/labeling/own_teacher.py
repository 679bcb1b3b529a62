"""A teacher of one's own: prefers the segment whose first observed number is larger on
average.
"""

from __future__ import annotations

from rlhp.types import Answer, Query


class TallerIsBetter:
    """Answers `tie` within `margin`."""

    def __init__(self, *, margin: float = 0.0) -> None:
        self.margin = margin

    def answer(self, query: Query) -> Answer | None:
        first, second = (
            float(segment.obs[""][:, 0].mean()) for segment in (query.first, query.second)
        )
        if abs(first - second) <= self.margin:
            return Answer.TIE
        return Answer.FIRST if first > second else Answer.SECOND
