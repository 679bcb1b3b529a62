"""The query actor: when it asks, and that it asks nothing twice, whatever dies around
it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import redis

from rlhp.preferences.answers import REUSED
from rlhp.preferences.events import EventRow
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue
from rlhp.types import comparison_id
from tests.preferences.dataset_samples import K, answer, segment
from tests.query.actor_parts import (
    STEPS,
    Checked,
    actor_in,
    asked_by,
    at,
    config,
    dataset_in,
    leases,
    segments,
)
from tests.queue.parts import ask, opened

# When it asks


def test_before_learning_it_waits_for_enough_segments_and_then_asks_the_initial_share(
    tmp_path: Path, queue: QueryQueue
) -> None:
    actor = actor_in(tmp_path, queue, config())
    assert actor.warmup_target == 20
    assert actor.offer(segments(19)) == 19
    assert asked_by(actor) == 0
    actor.offer(segments(1, start=19))
    assert asked_by(actor) == 10
    actor.progress(env_steps=200, warmup_steps=200, learning=False)
    assert asked_by(actor) == 0, "more steps of warm-up buy no more labels"
    status = actor.status()
    assert (status.pool, status.offered, status.allowed) == (
        20,
        20,
        10,
    )


def test_a_warm_up_whose_segments_make_no_pair_goes_on_collecting(
    tmp_path: Path, queue: QueryQueue
) -> None:
    actor = actor_in(tmp_path, queue, config(labels={"budget": 10}))
    actor.progress(env_steps=200, warmup_steps=200, learning=False)
    assert actor.warmup_target == 4
    actor.offer([segment(number, length=number + 1) for number in range(K)])
    assert asked_by(actor) == 0
    assert actor.warmup_target > K, "before it is reached nothing is tried again"
    actor.offer(segments(40, start=K))
    assert asked_by(actor) == 2


@pytest.mark.parametrize("schedule", ["hyperbolic", "constant", "exponential", "offline"])
@pytest.mark.parametrize("warmup_steps", [0, 100])
def test_at_every_step_it_has_asked_exactly_what_the_schedule_allows(
    tmp_path: Path, queue: QueryQueue, schedule: str, warmup_steps: int
) -> None:
    actor = actor_in(tmp_path, queue, config(labels={"schedule": schedule}))
    actor.offer(segments(40))
    for env_steps in range(warmup_steps, STEPS + 200, 60):
        at(actor, env_steps, warmup_steps=warmup_steps)
        asked_by(actor)
        asked = queue.stats().asked
        assert asked == actor.budget.allowed(env_steps - warmup_steps) == actor.status().allowed
    assert asked == 50


def test_an_actor_that_was_restarted_keeps_to_the_same_schedule(
    tmp_path: Path, queue: QueryQueue
) -> None:
    for env_steps in range(100, STEPS + 1, 90):
        actor = actor_in(tmp_path, queue, config())
        actor.offer(segments(40))
        at(actor, env_steps, warmup_steps=100)
        asked_by(actor)
        assert queue.stats().asked == actor.budget.allowed(env_steps - 100)


def test_it_keeps_no_more_queries_open_than_the_cap(tmp_path: Path, queue: QueryQueue) -> None:
    actor = actor_in(tmp_path, queue, config(query={"max_open": 3}))
    actor.offer(segments(30))
    at(actor, STEPS)
    assert asked_by(actor) == 3
    held = queue.lease(labeler="ann", page="ann-page", n=2)
    assert asked_by(actor) == 0, "a leased query is as open as one that waits"
    queue.answer(
        query=held[0].query, labeler="ann", page="ann-page", token=held[0].token, answer="tie"
    )
    assert asked_by(actor) == 1
    assert queue.stats().open == 3


# What it asks


def test_it_never_asks_one_pair_twice(tmp_path: Path, queue: QueryQueue) -> None:
    actor = actor_in(tmp_path, queue, config())
    actor.offer(segments(6))
    at(actor, STEPS)
    assert asked_by(actor) == 15, (
        "six segments make fifteen pairs, and the budget would allow fifty"
    )
    assert asked_by(actor) == 0
    pairs = {frozenset(lease.candidates) for lease in leases(queue)}
    assert len(pairs) == 15


def test_an_actor_that_was_restarted_repeats_neither_open_nor_answered_pairs(
    tmp_path: Path, queue: QueryQueue
) -> None:
    first = actor_in(tmp_path, queue, config())
    first.offer(segments(6))
    at(first, 0)
    assert asked_by(first) == 10
    for lease in queue.lease(labeler="ann", page="ann-page", n=2):
        queue.answer(
            query=lease.query, labeler="ann", page="ann-page", token=lease.token, answer="second"
        )
    dataset_in(tmp_path).add_events(
        [EventRow.of_event(event) for event in queue.events(consumer="test")]
    )
    second = actor_in(tmp_path, queue, config())
    second.offer(segments(6))
    at(second, STEPS)
    asked_by(second)
    assert queue.stats().asked == queue.stats().admitted == 15
    assert second.status().duplicates == 0, "a query of its own is no duplicate"


def test_what_an_emptied_redis_forgot_is_neither_asked_nor_paid_again(
    tmp_path: Path, redis_url: str
) -> None:
    old, new = opened(redis_url), opened(redis_url)
    actor = actor_in(tmp_path, old, config())
    actor.offer(segments(6))
    at(actor, 0)
    assert asked_by(actor) == 10
    answered = {frozenset(lease.candidates) for lease in leases(old)}
    dataset_in(tmp_path).add_events(
        [EventRow.of_event(event) for event in old.events(consumer="test")]
    )
    again = actor_in(tmp_path, new, config())
    again.offer(segments(6))
    at(again, 0)
    assert asked_by(again) == 0
    at(again, STEPS)
    assert asked_by(again) == 5
    assert not answered & {frozenset(lease.candidates) for lease in leases(new)}


def test_queries_that_nobody_could_answer_give_their_place_in_the_budget_back(
    tmp_path: Path, queue: QueryQueue
) -> None:
    actor = actor_in(tmp_path, queue, config())
    actor.offer(segments(20))
    at(actor, 0)
    assert asked_by(actor) == 10
    for lease in queue.lease(labeler="ann", page="ann-page", n=2):
        queue.skip(query=lease.query, labeler="ann", page="ann-page", token=lease.token)
    assert queue.stats().dropped == 2
    dataset_in(tmp_path).add_events(
        [EventRow.of_event(event) for event in queue.events(consumer="test")]
    )
    again = actor_in(tmp_path, queue, config())
    again.offer(segments(20))
    at(again, 0)
    assert asked_by(again) == 2


def test_reused_answers_are_not_paid_from_the_budget_of_this_run(
    tmp_path: Path, queue: QueryQueue
) -> None:
    reused = segments(12, start=100)
    store = dataset_in(tmp_path)
    store.add_segments(reused)
    note = f"{REUSED}another run"
    store.add_events(
        [answer(a, b, note=note) for a, b in zip(reused[::2], reused[1::2], strict=True)]
    )
    actor = actor_in(tmp_path, queue, config())
    actor.offer([*segments(20), *reused[:2]])
    at(actor, 0)
    assert asked_by(actor) == 10
    pairs = {comparison_id(lease.candidates) for lease in leases(queue)}
    assert comparison_id((reused[0].id, reused[1].id)) not in pairs


def test_segments_are_on_disk_before_the_query_exists(tmp_path: Path, queue: QueryQueue) -> None:
    checked = Checked(queue, tmp_path)
    actor = actor_in(tmp_path, checked, config())
    actor.offer(segments(20))
    at(actor, 0)
    assert asked_by(actor) == checked.checked == 10


# What the queue says


def test_a_full_queue_is_tried_again_later(tmp_path: Path, redis_url: str) -> None:
    queue = opened(redis_url, cap=4)
    actor = actor_in(tmp_path, queue, config())
    actor.offer(segments(5))
    at(actor, STEPS)
    assert asked_by(actor) == 4
    leases(queue)
    assert asked_by(actor) == 4
    leases(queue)
    assert asked_by(actor) == 2, "all ten pairs were asked, so those refused were not forgotten"


def test_a_budget_that_the_queue_calls_spent_is_no_error(tmp_path: Path, redis_url: str) -> None:
    queue = opened(redis_url, budget=6)
    actor = actor_in(tmp_path, queue, config())
    actor.offer(segments(20))
    at(actor, STEPS)
    assert asked_by(actor) == 6
    assert queue.stats().asked == 6


def test_a_server_without_memory_is_counted_and_asked_again(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path / "redis", maxmemory="64mb") as server,
        redis.Redis.from_url(server.url) as client,
    ):
        actor = actor_in(tmp_path, opened(server.url), config())
        actor.offer(segments(4))
        at(actor, STEPS)
        client.config_set("maxmemory", "1")
        assert actor.step() == 0
        assert actor.status().refused == 6
        client.config_set("maxmemory", "64mb")
        assert asked_by(actor) == 6
        assert actor.status().refused == 6


def test_a_pair_asked_by_somebody_else_is_a_duplicate_and_is_left_alone(
    tmp_path: Path, queue: QueryQueue
) -> None:
    offered = segments(3)
    ask(queue, "theirs", candidates=(offered[0].id, offered[1].id), payloads={})
    actor = actor_in(tmp_path, queue, config())
    actor.offer(offered)
    at(actor, STEPS)
    asked_by(actor)
    assert queue.stats().admitted == 3
    assert actor.status().duplicates == 1
    asked_by(actor)
    assert actor.status().duplicates == 1


def test_redis_away_leaves_step_as_a_connection_error_and_nothing_is_lost(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "server")
    queue = opened(server.start())
    try:
        actor = actor_in(tmp_path, queue, config())
        actor.offer(segments(20))
        at(actor, 0)
        assert asked_by(actor) == 10
        at(actor, STEPS)
        server.stop()
        with pytest.raises(ConnectionError, match="no service from Redis"):
            actor.step()
        restarted = actor_in(tmp_path, queue, config())
        assert actor.offer(segments(20, start=20)) == 20
        server.start()
        assert queue.stats().asked == 10
        assert asked_by(actor) == 40
        restarted.offer(segments(20))
        at(restarted, STEPS)
        assert asked_by(restarted) == 0
    finally:
        server.stop()


# What others ask it


def test_recent_gives_the_newest_transitions(tmp_path: Path, queue: QueryQueue) -> None:
    actor = actor_in(tmp_path, queue, config())
    assert actor.recent(100) is None
    actor.offer(segments(10))
    newest = [segment(9), segment(8), segment(7)]
    recent = actor.recent(3 * K - 2)
    assert recent is not None
    obs, actions = recent
    np.testing.assert_array_equal(obs, np.concatenate([each.obs[""][:-1] for each in newest])[:-2])
    np.testing.assert_array_equal(actions, np.concatenate([each.actions for each in newest])[:-2])
    everything = actor.recent(10_000)
    assert everything is not None
    assert everything[0].shape == (10 * K, 3)
