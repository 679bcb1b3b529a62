"""Asking and leasing: every status of every call, on a real Redis."""

from __future__ import annotations

import threading
import time

import pytest

from rlhp.queue.queue import QueryQueue
from tests.queue.parts import Meddler, ask, events, opened, say, take

# -- asking


def test_a_query_is_put_leased_and_answered(queue: QueryQueue) -> None:
    assert ask(queue, "q", body={"purpose": "train", "score": 0.5}) == "ok"
    lease = take(queue)
    assert (lease.query, lease.candidates) == ("q", ("q-a", "q-b"))
    assert lease.body == {"purpose": "train", "score": 0.5, "candidates": ["q-a", "q-b"]}
    assert queue.segments([*lease.candidates, "unknown"]) == {
        "q-a": b"first of q",
        "q-b": b"second of q",
    }
    assert say(queue, lease) == "ok"
    stats = queue.stats()
    assert (stats.open, stats.done, stats.asked, stats.answered) == (0, 1, 1, 1)


def test_a_repeated_put_changes_nothing(queue: QueryQueue) -> None:
    assert [ask(queue, "q"), ask(queue, "q")] == ["ok", "same"]
    say(queue, take(queue))
    assert ask(queue, "q") == "same"
    assert queue.stats().admitted == 1


def test_no_pair_is_asked_twice_in_either_order(queue: QueryQueue) -> None:
    ask(queue, "q", candidates=("a", "b"), payloads={})
    assert ask(queue, "other", candidates=("b", "a"), payloads={}) == "dup"
    assert queue.drop(query="q") == "ok"
    assert ask(queue, "other", candidates=("a", "b"), payloads={}) == "dup"


def test_a_full_queue_takes_nothing_until_somebody_answers(redis_url: str) -> None:
    queue = opened(redis_url, cap=2)
    assert [ask(queue, name) for name in "abc"] == ["ok", "ok", "full"]
    lease = take(queue)
    assert ask(queue, "c") == "full"
    assert queue.segments(["c-a", "c-b"]) == {}
    say(queue, lease)
    assert ask(queue, "c") == "ok"


def test_a_budget_is_never_overrun_not_even_by_a_second_caller(redis_url: str) -> None:
    queue = opened(redis_url, budget=5)
    again = QueryQueue(redis_url, run=queue.run, owner=queue.owner)
    statuses: list[str] = []
    threads = [
        threading.Thread(target=lambda q=q, n=n: statuses.append(ask(q, f"{n}")))
        for n, q in enumerate([queue, again] * 10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == ["ok"] * 5 + ["spent"] * 15
    assert queue.stats().asked == queue.stats().admitted == 5


def test_a_dropped_query_gives_its_share_of_the_budget_back(redis_url: str) -> None:
    queue = opened(redis_url, budget=1)
    ask(queue, "a")
    queue.drop(query="a")
    assert ask(queue, "b") == "ok"
    assert (queue.stats().admitted, queue.stats().asked) == (2, 1)


def test_queries_are_served_in_the_order_in_which_they_came(queue: QueryQueue) -> None:
    names = [f"{(7 * n) % 20:02d}" for n in range(20)]
    for name in names:
        ask(queue, name)
    served = []
    for _ in names:
        lease = take(queue)
        served.append(lease.query)
        say(queue, lease)
    assert served == names


def test_a_query_that_comes_back_keeps_its_place(queue: QueryQueue) -> None:
    for name in "abc":
        ask(queue, name)
    take(queue, page="p1")
    take(queue, page="p2")
    assert queue.release(page="p1") == 1
    assert take(queue, page="p3").query == "a"


def test_a_query_shows_two_different_segments_and_carries_no_others(queue: QueryQueue) -> None:
    with pytest.raises(ValueError, match="a query shows 2 to 4 different segments"):
        ask(queue, "q", candidates=("a", "a"), payloads={})
    with pytest.raises(ValueError, match=r"payloads of \['x'\]"):
        ask(queue, "q", payloads={"x": b""})


def test_an_addressed_query_is_served_to_its_labeler_first_and_to_nobody_else(
    redis_url: str,
) -> None:
    queue = opened(redis_url, cap=1)
    ask(queue, "all", candidates=("a", "b"), payloads={})
    assert ask(queue, "gold", candidates=("a", "b"), payloads={}, only="ann") == "ok"
    assert queue.stats().pending == 2
    assert take(queue, "bob").query == "all"
    assert queue.lease(labeler="cat", page="cat-page") == []
    assert take(queue, "ann").query == "gold"


def test_queries_addressed_to_an_absent_labeler_are_swept(
    queue: QueryQueue, meddler: Meddler
) -> None:
    ask(queue, "gold", only="ann")
    assert queue.sweep() == 0
    meddler.redis.hset(meddler.key("q:gold"), "made", 1)
    assert queue.stats().checks == 1
    assert queue.sweep() == 1
    assert (queue.stats().checks, queue.stats().dropped, queue.stats().open) == (0, 0, 0)


def test_no_budget_pays_for_an_addressed_query_and_none_is_refused_for_it(redis_url: str) -> None:
    queue = opened(redis_url, budget=1)
    assert ask(queue, "check", only="ann") == "ok"
    assert ask(queue, "q") == "ok"
    assert ask(queue, "another", only="ann") == "ok"
    for name in ("check", "another"):
        lease = take(queue)
        assert lease.query == name
        say(queue, lease)
    assert take(queue).query == "q"
    stats = queue.stats()
    assert (stats.checks, stats.admitted, stats.asked, stats.answered, stats.done) == (
        2,
        1,
        1,
        0,
        0,
    )
    assert queue.undo(query="check", labeler="ann", page="ann-page", rev=1).status == "ok"
    assert queue.stats().answered == 0
    assert ask(queue, "more") == "spent"


def test_what_is_hidden_reaches_the_log_and_no_labeler(queue: QueryQueue) -> None:
    ask(queue, "q", hidden={"gold": "second"})
    lease = take(queue)
    assert "gold" not in str(lease)
    say(queue, lease)
    ask(queue, "plain")
    say(queue, take(queue))
    assert [dict(event.hidden) for event in events(queue)] == [{"gold": "second"}, {}]


def test_a_query_without_clips_is_reserved_until_they_are_ready(queue: QueryQueue) -> None:
    clips = queue.clips
    assert ask(queue, "q", ready=False) == "ok"
    assert (queue.stats().reserved, queue.lease(labeler="ann", page="p")) == (1, [])
    clips.store(query="q", side="first", data=b"webm")
    assert queue.ready(query="q") == "noclip"
    clips.store(query="q", side="second", data=b"webm2")
    assert [queue.ready(query="q"), queue.ready(query="q"), queue.ready(query="other")] == [
        "ok",
        "same",
        "gone",
    ]
    assert take(queue).query == "q"
    assert clips.fetch(query="q", side="second") == b"webm2"
    assert clips.fetch(query="q", side="first") == b"webm"


def test_a_reservation_that_is_given_up_may_be_asked_again(
    queue: QueryQueue, meddler: Meddler
) -> None:
    ask(queue, "q", ready=False)
    meddler.redis.zadd(meddler.key("reserved"), {"q": 1})
    assert queue.sweep() == 1
    assert (queue.stats().lapsed, queue.stats().asked, queue.segments(["q-a"])) == (1, 0, {})
    assert ask(queue, "q") == "ok"


def test_drop_takes_back_what_nobody_is_answering(queue: QueryQueue) -> None:
    ask(queue, "a")
    ask(queue, "b")
    lease = take(queue)
    assert [queue.drop(query=name) for name in ("a", "b", "b", "c")] == [
        "leased",
        "ok",
        "same",
        "gone",
    ]
    say(queue, lease)
    assert queue.drop(query="a") == "gone"
    assert [(event.event, event.query) for event in events(queue)] == [
        ("drop", "b"),
        ("answer", "a"),
    ]


# -- leasing


def test_a_repeated_lease_returns_the_same_queries_in_the_same_order(queue: QueryQueue) -> None:
    for name in "abcd":
        ask(queue, name)
    first = queue.lease(labeler="ann", page="p", n=2)
    again = queue.lease(labeler="ann", page="p", n=9)
    assert (
        [(x.query, x.token) for x in again]
        == [(x.query, x.token) for x in first]
        == [("a", 1), ("b", 1)]
    )


def test_a_labeler_holds_four_queries_at_most_over_all_pages(queue: QueryQueue) -> None:
    for name in "abcdef":
        ask(queue, name)
    held = [len(queue.lease(labeler="ann", page=f"p{n}", n=2)) for n in range(3)]
    assert held == [2, 2, 0]
    assert len(queue.lease(labeler="bob", page="bob", n=2)) == 2


def test_a_lease_runs_out_on_the_clock_of_the_server(redis_url: str) -> None:
    queue = opened(redis_url, lease_seconds=0.05)
    ask(queue)
    lost = take(queue, "ann")
    time.sleep(0.08)
    lease = take(queue, "bob")
    assert (lease.query, lease.token) == (lost.query, 2)
    assert queue.stats().expired == 1


def test_a_heartbeat_keeps_a_lease(redis_url: str) -> None:
    queue = opened(redis_url, lease_seconds=0.5)
    ask(queue)
    lease = take(queue)
    for _ in range(4):
        time.sleep(0.2)
        assert queue.extend(page="ann-page") == 1
    assert say(queue, lease) == "ok"
    assert queue.extend(page="ann-page") == 0


def test_nobody_holds_a_query_for_ever(queue: QueryQueue, meddler: Meddler) -> None:
    ask(queue)
    lease = take(queue)
    begin = int(meddler.redis.hget(meddler.key("q:q"), "at"))
    assert lease.deadline_ms - begin == 60_000
    meddler.redis.hset(meddler.key("q:q"), "at", begin - 14 * 60_000 - 30_000)
    (renewed,) = queue.lease(labeler="ann", page="ann-page")
    assert renewed.deadline_ms == begin + 30_000


def test_a_lease_lasts_three_times_the_median_answer_time_of_its_labeler(
    queue: QueryQueue, meddler: Meddler
) -> None:
    for seconds, expected in ((1, 30), (40, 120), (1000, 600)):
        meddler.redis.delete(meddler.key("times:ann"))
        meddler.redis.rpush(meddler.key("times:ann"), *[seconds * 1000] * 4, 1, 10**7)
        ask(queue, f"q{seconds}")
        lease = take(queue, page=f"p{seconds}")
        granted = int(meddler.redis.hget(meddler.key(f"q:{lease.query}"), "at"))
        assert lease.deadline_ms - granted == expected * 1000


def test_release_leaves_no_trace(queue: QueryQueue) -> None:
    ask(queue)
    lease = take(queue)
    assert [queue.release(page="ann-page"), queue.release(page="ann-page")] == [1, 0]
    assert events(queue) == []
    assert take(queue).token == lease.token + 1


def test_a_closed_run_lends_nothing_but_takes_answers(queue: QueryQueue) -> None:
    ask(queue, "a")
    ask(queue, "b")
    lease = take(queue)
    queue.close(state="draining")
    assert queue.state == "draining"
    queue.close()
    assert (queue.state, queue.lease(labeler="bob", page="p")) == ("closed", [])
    assert say(queue, lease) == "ok"
