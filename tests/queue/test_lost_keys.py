"""A key that is gone and a clock that was set back cost what they held, and stop
nobody.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from rlhp.errors import RlhpError
from rlhp.queue.queue import QueryQueue
from tests.queue.parts import Meddler, ask, events, opened, say, take, until

HOUR_MS = 3_600_000


def at_work(url: str) -> tuple[QueryQueue, Meddler]:
    """A run with a query in every state, two labelers and a check of one of them."""
    queue = opened(url, cap=50, lease_seconds=60)
    for name in ("done", "undone", "leased"):
        ask(queue, name)
        if name != "leased":
            assert say(queue, take(queue)) == "ok"
    queue.undo(query="undone", labeler="ann", page="ann-page", rev=1)
    queue.release(page="ann-page")
    assert [lease.query for lease in queue.lease(labeler="bob", page="bob-page", n=2)] == [
        "undone",
        "leased",
    ]
    ask(queue, "reserved", ready=False)
    ask(queue, "check", only="ann")
    ask(queue, "pending")
    return queue, Meddler(queue)


KEYS = (
    "meta",
    "counts",
    "answers",
    "open",
    "pending",
    "pending@ann",
    "leased",
    "reserved",
    "finished",
    "dedup",
    "labelers",
    "labeler:ann",
    "labeler:bob",
    "times:ann",
    "history:ann",
    "seen:ann",
    "held:bob-page",
    "holds:bob",
    "segrefs",
    "clock",
    "addressees",
    "q:done",
    "q:undone",
    "q:leased",
    "q:reserved",
    "q:check",
    "q:pending",
    "seg:pending-a",
)


def calls(queue: QueryQueue) -> dict[str, Any]:
    """Everything that a run, its labelers and its admin do."""
    return {
        "stats": queue.stats,
        "lease": lambda: queue.lease(labeler="ann", page="ann-page", n=2),
        "lease to a newcomer": lambda: queue.lease(labeler="eve", page="eve-page", n=2),
        "extend": lambda: queue.extend(page="bob-page"),
        "answer": lambda: queue.answer(
            query="leased", labeler="bob", page="bob-page", token=1, answer="tie"
        ),
        "skip": lambda: queue.skip(query="undone", labeler="bob", page="bob-page", token=3),
        "undo": lambda: queue.undo(query="done", labeler="ann", page="ann-page", rev=1),
        "drop": lambda: queue.drop(query="pending"),
        "ready": lambda: queue.ready(query="reserved"),
        "put": lambda: ask(queue, "another"),
        "release": lambda: queue.release(page="bob-page"),
        "sweep": queue.sweep,
        "trim": queue.trim,
        "events": lambda: queue.ack(
            [event.stream_id for event in queue.events(consumer="trainer")]
        ),
        "info": lambda: queue.set_info({"env": "Pendulum"}),
        "stats again": queue.stats,
    }


def test_the_list_of_keys_is_that_of_a_run(redis_url: str) -> None:
    queue, meddler = at_work(redis_url)
    found = {name.removeprefix(meddler.key("")) for name in meddler.redis.keys(meddler.key("*"))}
    assert found - set(KEYS) <= {f"seg:{query}-{side}" for query in QUERIES for side in "ab"} | {
        "seen:bob",
        "holds:ann",
    }
    assert set(KEYS) <= found
    meddler.close()
    assert queue.stats().open == 5


QUERIES = ("done", "undone", "leased", "reserved", "check", "pending")


REFUSED = {("meta", "put"), ("meta", "info"), ("answers", "events")}
"""What is left of the run cannot go on, and says how it can."""


@pytest.mark.parametrize("lost", KEYS)
def test_no_lost_key_makes_a_call_fail(redis_url: str, lost: str) -> None:
    queue, meddler = at_work(redis_url)
    assert meddler.redis.delete(meddler.key(lost)) == 1
    for name, call in calls(queue).items():
        if (lost, name) in REFUSED:
            with pytest.raises(RlhpError, match="rlhp train --resume"):
                call()
        else:
            call()
    stats = queue.stats()
    assert min(stats.pending, stats.leased, stats.reserved, stats.backlog) >= 0
    meddler.close()


@pytest.mark.parametrize(
    "lost", [key for key in KEYS if not key.startswith(("q:", "seg:", "meta"))]
)
def test_every_open_query_is_offered_again_after_a_lost_key(redis_url: str, lost: str) -> None:
    queue, meddler = at_work(redis_url)
    meddler.redis.delete(meddler.key(lost))
    queue.release(page="bob-page")
    meddler.expire_leases()
    queue.sweep()
    queue.sweep()
    offered = set()
    for n in range(3):
        offered |= {lease.query for lease in queue.lease(labeler=f"new{n}", page=f"new{n}", n=2)}
    assert offered == {"undone", "leased", "pending"}
    meddler.close()


def test_a_query_that_was_lost_gives_its_place_back(redis_url: str) -> None:
    queue, meddler = opened(redis_url, cap=1, budget=1), None
    ask(queue, "a")
    meddler = Meddler(queue)
    meddler.redis.delete(meddler.key("q:a"))
    assert ask(queue, "b") == "full"
    queue.sweep()
    assert (queue.stats().open, ask(queue, "b")) == (0, "ok")
    meddler.close()


def an_hour_ahead(meddler: Meddler) -> None:
    """Everything so far was stamped by a clock that is set back by an hour now."""
    for name in ("leased", "reserved", "open", "finished"):
        for member in meddler.redis.zrange(meddler.key(name), 0, -1):
            meddler.redis.zincrby(meddler.key(name), HOUR_MS, member)
    for key in meddler.redis.keys(meddler.key("q:*")):
        for field in [
            each for each in meddler.redis.hkeys(key) if each == "at" or each.startswith("at:")
        ]:
            meddler.redis.hincrby(key, field, HOUR_MS)
    for key in meddler.redis.keys(meddler.key("labeler:*")):
        meddler.redis.hincrby(key, "last_seen", HOUR_MS)
    meddler.redis.set(meddler.key("clock"), int(time.time() * 1000) + HOUR_MS)


def test_a_clock_that_is_set_back_keeps_no_query_for_an_absent_labeler(redis_url: str) -> None:
    queue = opened(redis_url, lease_seconds=0.3)
    meddler = Meddler(queue)
    ask(queue, "a")
    take(queue)
    an_hour_ahead(meddler)
    until(lambda: bool(queue.lease(labeler="bob", page="bob-page")), seconds=20)
    assert queue.stats().labelers["ann"].idle_seconds < 60
    assert queue.stats().oldest_age_seconds < 60
    meddler.close()


def test_a_clock_that_is_set_back_times_the_answer_right(redis_url: str) -> None:
    queue = opened(redis_url)
    meddler = Meddler(queue)
    ask(queue, "a")
    lease = take(queue)
    an_hour_ahead(meddler)
    assert say(queue, lease) == "ok"
    (event,) = events(queue)
    assert event.leased_ms is not None
    assert 0 <= event.at_ms - event.leased_ms < 30_000
    assert queue.stats().labelers["ann"].mean_answer_seconds < 30
    meddler.close()
