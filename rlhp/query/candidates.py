"""Which pairs of segments could be asked about: drawn at random, of equal length, never asked before.

One segment of each pair is among the newest, so that the answer is about what the policy does now. The other is any of
the pool: beside what the policy did before, it shows what the policy can change. Pairs of newest segments alone differ
mostly in what it cannot, as where a target happened to lie.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from rlhp.types import Segment, pair_id

TRIES = 4
"""Draws per pair that is wanted: a small pool may hold fewer new pairs."""


def random_pairs(
    pool: Sequence[Segment], count: int, *, newest: int, asked: Set[str], rng: np.random.Generator
) -> list[tuple[Segment, Segment]]:
    """At most `count` pairs, none twice and none in `asked`; a segment of odd length finds no partner.

    `pool` is ordered from old to new, and one of each pair is among its last `newest`.
    """
    newest = min(newest, len(pool))
    by_length: dict[int, list[Segment]] = {}
    for segment in pool:
        by_length.setdefault(segment.length, []).append(segment)
    pairs: list[tuple[Segment, Segment]] = []
    taken: set[str] = set()
    for _ in range(TRIES * count):
        new = pool[len(pool) - newest + int(rng.integers(newest))]
        group = by_length[new.length]
        other = group[int(rng.integers(len(group)))]
        pair = (new, other) if rng.integers(2) else (other, new)
        key = pair_id((pair[0].id, pair[1].id))
        if pair[0].id == pair[1].id or key in taken or key in asked:
            continue
        taken.add(key)
        pairs.append(pair)
        if len(pairs) == count:
            break
    return pairs
