"""Which pairs may be asked about: one segment of each is new, and no pair comes twice."""

from __future__ import annotations

import numpy as np

from rlhp.query.selection import random_pairs
from rlhp.types import comparison_id
from tests.query.actor_parts import segments


def test_one_of_each_pair_is_among_the_newest_and_the_other_is_any() -> None:
    pool = segments(100)
    newest = {each.id for each in pool[-10:]}
    pairs = random_pairs(pool, 300, newest=10, asked=set(), rng=np.random.default_rng(0))
    assert len(pairs) == 300
    assert all({first.id, second.id} & newest for first, second in pairs)
    others = {each.id for pair in pairs for each in pair} - newest
    assert len(others) > 60, "what the policy did before is shown beside it"
    new_first = sum(first.id in newest for first, _ in pairs)
    assert 100 < new_first < 220, "the new one is first about as often as second"


def test_no_pair_comes_twice_and_none_that_was_asked() -> None:
    pool = segments(8)
    asked = {comparison_id((pool[7].id, pool[0].id))}
    pairs = random_pairs(pool, 200, newest=1, asked=asked, rng=np.random.default_rng(0))
    found = [comparison_id((first.id, second.id)) for first, second in pairs]
    assert len(found) == len(set(found)) <= 6
    assert not set(found) & asked
    assert all(first.id != second.id for first, second in pairs)


def test_more_newest_than_there_are_is_all_of_them() -> None:
    pool = segments(5)
    pairs = random_pairs(pool, 50, newest=1000, asked=set(), rng=np.random.default_rng(0))
    assert {each.id for pair in pairs for each in pair} == {each.id for each in pool}
