"""Which of the queries that could be asked are worth a person's time.

A strategy ranks them, each a tuple of segments; the query actor asks the highest. Your
own is a class in a module of yours, named in the config as
`query.selection: package.module:Name`:

    class MostSurprising:
        def rank(self, queries, returns, rng):
            if returns is None:                      # before the first reward version
                return rng.random(len(queries))
            return -abs(returns[:, :, 0] - returns[:, :, 1]).mean(0)

Shapes: M members, Q queries that could be asked, C candidates of each, which are two.

Which pairs of segments could be asked about: drawn at random, of equal length, never
asked before.

One segment of each pair is among the newest, so that the answer is about what the
policy does now. The other is any of the pool: beside what the policy did before, it
shows what the policy can change. Pairs of newest segments alone differ mostly in what
it cannot, as where a target happened to lie.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Protocol

import numpy as np

from rlhp.errors import RlhpError
from rlhp.system import imports
from rlhp.types import Array, Segment, comparison_id


class Selection(Protocol):
    """Ranks queries that could be asked: higher is asked sooner."""

    def rank(
        self,
        queries: Sequence[tuple[Segment, ...]],
        returns: Array | None,
        rng: np.random.Generator,
        /,
    ) -> Array:
        """Scores [Q]. `returns` [M, Q, C] are the members' raw sums over the candidates;
        None before version 1.
        """
        ...


class Random:
    """Every query alike. At least as good as disagreement in several reproductions;
    always the baseline.
    """

    def rank(
        self,
        queries: Sequence[tuple[Segment, ...]],
        returns: Array | None,
        rng: np.random.Generator,
    ) -> Array:
        """Uniform noise [Q]."""
        return rng.random(len(queries))


class Disagreement:
    """Variance over members of P(each candidate preferred), mean over the candidates:
    for a pair, that of P(first preferred) (Christiano et al. 2017, section 2.2.4).
    """

    def rank(
        self,
        queries: Sequence[tuple[Segment, ...]],
        returns: Array | None,
        rng: np.random.Generator,
    ) -> Array:
        """Variance [Q]; random before the first version, when members know nothing."""
        if returns is None:
            return rng.random(len(queries))
        variance: Array = choice_probabilities(returns).var(axis=0).mean(-1)
        return variance


def log_odds(returns: Array) -> Array:
    """ln(P / (1 - P)) [*, C] of each candidate under the softmax of the returns [*, C]:
    for a pair the difference of two returns.
    """
    returns = returns.astype(np.float64)
    others = [np.delete(returns, place, axis=-1) for place in range(returns.shape[-1])]
    rest = np.stack([np.logaddexp.reduce(each, axis=-1) for each in others], axis=-1)
    odds: Array = returns - rest
    return odds


def choice_probabilities(returns: Array) -> Array:
    """P(each candidate preferred) [*, C] under the softmax of the returns [*, C]."""
    odds = log_odds(returns)
    p: Array = 0.5 * (1 + np.tanh(0.5 * odds))  # a sigmoid that cannot overflow
    return p


def make_selection(name: str) -> Selection:
    """`random`, `disagreement`, or an instance of the class at `package.module:Name`."""
    if name == "random":
        return Random()
    if name == "disagreement":
        return Disagreement()
    if ":" not in name:
        raise RlhpError(
            f"query.selection is random, disagreement or package.module:Name; got {name!r}"
        )
    make = imports.load(name, key="query.selection")
    try:
        made = make()
    except Exception as error:
        raise RlhpError(
            f"query.selection={name!r} could not be built: {error}; it takes no arguments"
        ) from error
    if not callable(getattr(made, "rank", None)):
        raise RlhpError(
            f"query.selection={name!r} has no method rank(queries, returns, rng) -> scores"
        )
    selection: Selection = made
    return selection


TRIES = 4
"""Draws per pair that is wanted: a small pool may hold fewer new pairs."""


def random_pairs(
    pool: Sequence[Segment], count: int, *, newest: int, asked: Set[str], rng: np.random.Generator
) -> list[tuple[Segment, Segment]]:
    """At most `count` pairs, none twice and none in `asked`; a segment of odd length
    finds no partner.

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
        key = comparison_id((pair[0].id, pair[1].id))
        if pair[0].id == pair[1].id or key in taken or key in asked:
            continue
        taken.add(key)
        pairs.append(pair)
        if len(pairs) == count:
            break
    return pairs
