"""Which pairs of segments could be asked about: drawn at random, of equal length, never asked before."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from rlhp.types import Segment, pair_id

TRIES = 4
"""Draws per pair that is wanted: a small pool may hold fewer new pairs."""


def random_pairs(
    pool: Sequence[Segment], count: int, *, asked: Set[str], rng: np.random.Generator
) -> list[tuple[Segment, Segment]]:
    """At most `count` pairs, none twice and none in `asked`; a segment of odd length finds no partner."""
    by_length: dict[int, list[Segment]] = {}
    for segment in pool:
        by_length.setdefault(segment.length, []).append(segment)
    pairs: list[tuple[Segment, Segment]] = []
    taken: set[str] = set()
    for _ in range(TRIES * count):
        group = by_length[pool[int(rng.integers(len(pool)))].length]
        if len(group) < 2:
            continue
        first, second = (int(k) for k in rng.choice(len(group), size=2, replace=False))
        pair = (group[first], group[second])
        key = pair_id((pair[0].id, pair[1].id))
        if pair[0].id == pair[1].id or key in taken or key in asked:
            continue
        taken.add(key)
        pairs.append(pair)
        if len(pairs) == count:
            break
    return pairs
