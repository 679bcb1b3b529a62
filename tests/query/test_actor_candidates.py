"""What the query actor asks about: which pairs, by whose scores, and what a query
carries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rlhp.queue.queue import QueryQueue
from rlhp.reward.service import NoRewardYet
from rlhp.types import decode
from tests.preferences.dataset_samples import PLAIN, K
from tests.query.actor_parts import STEPS, actor_in, asked_by, at, config, leases, segments
from tests.query.own_selection import Recorded
from tests.small_runs import priced


@pytest.fixture
def recorded() -> Iterator[type[Recorded]]:
    Recorded.calls.clear()
    yield Recorded
    Recorded.calls.clear()


def test_the_query_carries_the_segments_it_names(tmp_path: Path, queue: QueryQueue) -> None:
    actor = actor_in(tmp_path, queue, config(query={"selection": "disagreement"}))
    offered = {each.id: each for each in segments(20)}
    actor.offer(list(offered.values()))
    at(actor, 0)
    asked_by(actor)
    (lease,) = queue.lease(labeler="ann", page="ann-page")
    payloads = queue.segments(lease.candidates)
    for id_ in lease.candidates:
        np.testing.assert_array_equal(decode(payloads[id_]).obs[""], offered[id_].obs[""])
    assert (lease.body["strategy"], lease.body["reward_version"]) == ("disagreement", 1)
    assert lease.body["score"] >= 0


def test_both_sides_of_a_query_are_equally_long(tmp_path: Path, queue: QueryQueue) -> None:
    actor = actor_in(tmp_path, queue, config())
    mixed = [
        *segments(6),
        *segments(6, start=50, length=K - 2),
        *segments(1, start=80, length=K - 1),
    ]
    lengths = {each.id: each.length for each in mixed}
    actor.offer(mixed)
    at(actor, STEPS)
    assert asked_by(actor) == 30, "two groups of six make fifteen pairs each"
    found = [tuple(lengths[id_] for id_ in lease.candidates) for lease in leases(queue)]
    assert {pair[0] == pair[1] for pair in found} == {True}
    assert K - 1 not in {length for pair in found for length in pair}, (
        "a segment of odd length finds no partner"
    )


def test_the_newest_segments_are_asked_about(tmp_path: Path, queue: QueryQueue) -> None:
    actor = actor_in(tmp_path, queue, config())
    actor.offer(segments(60))
    newest = {each.id for each in segments(40, start=20)}
    at(actor, STEPS)
    asked_by(actor)
    assert {id_ for lease in leases(queue) for id_ in lease.candidates} <= newest
    assert actor.status().pool == 40


def test_it_asks_the_highest_scores_of_ten_times_as_many_candidates(
    tmp_path: Path, queue: QueryQueue, recorded: type[Recorded]
) -> None:
    actor = actor_in(
        tmp_path, queue, config(query={"selection": "tests.query.own_selection:Recorded"})
    )
    actor.offer(segments(40))
    at(actor, 0)
    assert actor.step() == 10
    ((pairs, scores, returns),) = recorded.calls
    assert len(pairs) == len({frozenset(pair) for pair in pairs}) == 100
    assert returns is not None
    assert returns.shape == (2, 100, 2)
    known: dict[tuple[str, ...], float] = dict(zip(pairs, scores, strict=True))
    asked = [known[lease.candidates] for lease in leases(queue)]
    assert asked == sorted(scores, reverse=True)[:10]


def test_a_strategy_gets_the_members_raw_sums(
    tmp_path: Path, queue: QueryQueue, recorded: type[Recorded]
) -> None:
    settings = config(query={"selection": "tests.query.own_selection:Recorded"})
    actor = actor_in(tmp_path, queue, settings)
    actor.offer(segments(12))
    at(actor, 0)
    actor.step()
    ((pairs, _, returns),) = recorded.calls
    assert returns is not None
    known = {each.id: each for each in segments(12)}
    for index, pair in enumerate(pairs[:5]):
        for side, id_ in enumerate(pair):
            obs = PLAIN.obs.flatten({"": known[id_].obs[""][:-1]})
            scores, _ = priced(settings, PLAIN).score(obs, PLAIN.action.encode(known[id_].actions))
            np.testing.assert_allclose(returns[:, index, side], scores.sum(1), rtol=1e-5)


def test_before_learning_nobody_is_asked_for_scores(
    tmp_path: Path, queue: QueryQueue, recorded: type[Recorded]
) -> None:
    actor = actor_in(
        tmp_path, queue, config(query={"selection": "tests.query.own_selection:Recorded"})
    )
    actor.offer(segments(40))
    assert asked_by(actor) == 10
    assert [returns for _, _, returns in recorded.calls] == [None]


def test_without_a_reward_version_it_asks_without_scores(tmp_path: Path, queue: QueryQueue) -> None:
    class NoneYet:
        def predict(self, *_: object, **__: object) -> tuple[np.ndarray, int]:
            raise AssertionError("the query actor labels nothing")

        def score(self, *_: object) -> tuple[np.ndarray, int]:
            raise NoRewardYet("none")

    actor = actor_in(tmp_path, queue, config())
    actor._reward = NoneYet()
    actor.offer(segments(20))
    at(actor, 0)
    assert asked_by(actor) == 10
    (lease,) = queue.lease(labeler="ann", page="ann-page")
    assert lease.body["reward_version"] is None


@pytest.mark.parametrize(("name", "shape"), [("Short", "(99,)"), ("Undefined", "(100,)")])
def test_a_strategy_that_does_not_score_every_pair_is_one_error(
    tmp_path: Path, queue: QueryQueue, name: str, shape: str
) -> None:
    actor = actor_in(
        tmp_path, queue, config(query={"selection": f"tests.query.own_selection:{name}"})
    )
    actor.offer(segments(40))
    at(actor, 0)
    rule = (
        f"query.selection='tests.query.own_selection:{name}' must give one finite score per "
        "candidate pair"
    )
    with pytest.raises(ValueError, match=re.escape(f"{rule}, got shape {shape} for 100 pairs")):
        actor.step()
    assert queue.stats().admitted == 0


def test_a_teacher_is_told_the_scale_of_the_returns(tmp_path: Path, queue: QueryQueue) -> None:
    actor = actor_in(tmp_path, queue, config())
    actor.offer(segments(20))
    early = [(-9.0, 20)] * 5
    actor.progress(
        env_steps=100, warmup_steps=100, learning=False, lowest_return=-9.0, episodes=early
    )
    at(
        actor,
        110,
        warmup_steps=100,
        lowest_return=-9.0,
        episodes=[(float(n), 10) for n in range(10)],
    )
    asked_by(actor)
    (lease,) = queue.lease(labeler="ann", page="ann-page")
    assert lease.body["context"] == {
        "mean_episode_return": 4.5,
        "lowest_warmup_return": -9.0,
        "episode_length": 10.0,
    }


@pytest.mark.parametrize(("source", "episodes"), [("human", [(1.0, 20)]), ("oracle", [])])
def test_a_person_is_told_nothing_and_without_episodes_there_is_nothing_to_tell(
    tmp_path: Path, queue: QueryQueue, source: str, episodes: list[tuple[float, int]]
) -> None:
    actor = actor_in(tmp_path, queue, config(labels={"source": source}, clips={"enabled": False}))
    actor.offer(segments(20))
    at(actor, 0, episodes=episodes)
    asked_by(actor)
    (lease,) = queue.lease(labeler="ann", page="ann-page")
    assert lease.body["context"] is None
