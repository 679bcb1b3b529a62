"""Selections of a user's own, named in tests as `tests.query.own_selection:Name`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlhp.types import Array, Segment

Pairs = Sequence[tuple[Segment, Segment]]


class Recorded:
    """Prefers pairs whose segments began late, and remembers every call."""

    calls: list[tuple[list[tuple[str, str]], Array, Array | None]] = []  # noqa: RUF012  # read by the test

    def rank(self, pairs: Pairs, returns: Array | None, rng: np.random.Generator) -> Array:
        scores = np.array([first.start + second.start for first, second in pairs], np.float64)
        self.calls.append(([(first.id, second.id) for first, second in pairs], scores, returns))
        return scores


class Short:
    """Forgets the last pair."""

    def rank(self, pairs: Pairs, returns: Array | None, rng: np.random.Generator) -> Array:
        return np.zeros(len(pairs) - 1)


class Undefined:
    """Divides by zero."""

    def rank(self, pairs: Pairs, returns: Array | None, rng: np.random.Generator) -> Array:
        return np.full(len(pairs), np.nan)


class Unready:
    """Cannot be built without an argument."""

    def __init__(self, needed: int) -> None:
        self.needed = needed


class Silent:
    """Ranks nothing."""
