"""The answer log: read at least once, in order, by one reader after another, and never
trimmed too far.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from rlhp.queue import log
from rlhp.queue.queue import QueryQueue
from rlhp.types import Answer
from tests.queue.parts import Meddler, ask, events, say, take


def answered(queue: QueryQueue, *names: str) -> None:
    """Each of these queries, put and answered."""
    for name in names:
        ask(queue, name)
        assert say(queue, take(queue)) == "ok"


def again(queue: QueryQueue) -> QueryQueue:
    """The same run as a process started later sees it."""
    return QueryQueue(queue.url, run=queue.run)


def names(found: list[Any]) -> list[str]:
    return [event.query for event in found]


def test_an_event_says_everything_a_row_needs(queue: QueryQueue, meddler: Meddler) -> None:
    ask(queue, body={"purpose": "train", "strategy": "disagreement"})
    lease = take(queue)
    meta = {"kind": "human", "shown_left": "second", "latency_ms": 840}
    queue.answer(
        query="q", labeler="ann", page="tab", token=lease.token, answer="incomparable", meta=meta
    )
    (event,) = events(queue)
    assert (event.event, event.query, event.labeler, event.page) == ("answer", "q", "ann", "tab")
    assert (event.answer, event.rev, event.how, event.token) == (Answer.INCOMPARABLE, 1, "ok", 1)
    assert (event.candidates, event.meta) == (("q-a", "q-b"), meta)
    assert event.body == {
        "purpose": "train",
        "strategy": "disagreement",
        "candidates": ["q-a", "q-b"],
    }
    assert event.made_ms == int(meddler.redis.hget(meddler.key("q:q"), "made"))
    assert event.made_ms <= event.at_ms


def test_what_was_read_but_not_acked_comes_again_after_a_crash(queue: QueryQueue) -> None:
    answered(queue, *"abcde")
    first = queue.events(consumer="trainer", count=2)
    queue.ack([first[0].stream_id])
    assert names(queue.events(consumer="trainer", count=2)) == ["c", "d"]
    later = again(queue)
    assert names(later.events(consumer="trainer", count=2)) == ["b", "c"]
    assert names(later.events(consumer="trainer", count=2)) == ["d"]
    assert names(later.events(consumer="trainer")) == ["e"]
    assert later.events(consumer="trainer") == []
    assert (queue.stats().unacked, queue.stats().backlog) == (4, 4)


def test_one_reader_is_given_each_event_once(queue: QueryQueue) -> None:
    answered(queue, "a")
    assert names(events(queue)) == ["a"]
    answered(queue, "b")
    assert names(events(queue)) == ["b"]


def test_events_of_a_dead_reader_are_claimed(queue: QueryQueue, meddler: Meddler) -> None:
    answered(queue, "a", "b")
    assert names(queue.events(consumer="dead")) == ["a", "b"]
    for pending in meddler.redis.xpending_range(meddler.key("answers"), "reward", "-", "+", 10):
        meddler.redis.xclaim(
            meddler.key("answers"),
            "reward",
            "dead",
            0,
            [pending["message_id"]],
            idle=61_000,
            justid=True,
        )
    answered(queue, "c")
    later = again(queue)
    assert names(later.events(consumer="trainer")) == ["a", "b"]
    assert names(later.events(consumer="trainer")) == ["c"]


def test_events_of_a_reader_that_lives_are_left_to_it(queue: QueryQueue) -> None:
    answered(queue, "a")
    assert names(queue.events(consumer="one")) == ["a"]
    assert again(queue).events(consumer="two") == []


def test_ack_and_backlog_are_exact_however_often_acked(queue: QueryQueue) -> None:
    answered(queue, *"abc")
    ids = [event.stream_id for event in events(queue)]
    assert queue.ack(ids[:2]) == 2
    assert queue.ack(ids) == 1
    assert queue.ack([]) == 0
    assert (queue.stats().unacked, queue.stats().backlog) == (0, 0)


def test_trim_removes_nothing_that_is_not_acked(queue: QueryQueue, meddler: Meddler) -> None:
    answered(queue, *"abcde")
    assert queue.trim() == 0
    ids = [event.stream_id for event in events(queue)]
    queue.ack([ids[0], ids[1], ids[3]])
    assert queue.trim() == 2
    assert names(events(again(queue))) == ["c", "e"]
    queue.ack(ids)
    assert queue.trim() == 2  # the newest stays
    assert meddler.redis.xlen(meddler.key("answers")) == 1


def test_reading_waits_for_an_event_when_told_to(queue: QueryQueue) -> None:
    assert queue.events(consumer="trainer", block_ms=20) == []
    answered(queue, "a")
    assert names(queue.events(consumer="trainer", block_ms=60_000)) == ["a"]


def test_reading_a_run_that_was_never_opened_is_refused(redis_url: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"run nowhere is not at redis://127.0.0.1:\d+/0: it was never opened there, or",
    ):
        QueryQueue(redis_url, run="nowhere").events(consumer="trainer")


def test_entries_trimmed_by_somebody_else_are_named_and_passed_over(
    queue: QueryQueue, meddler: Meddler, caplog: pytest.LogCaptureFixture
) -> None:
    answered(queue, "a", "b")
    first, _ = events(queue)
    meddler.redis.xdel(meddler.key("answers"), first.stream_id)
    assert names(events(again(queue))) == ["b"]
    assert (queue.stats().unacked, queue.stats().backlog) == (1, 1)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(
        f"events {first.stream_id} were trimmed before they were acked (said once)"
    )


def test_a_damaged_entry_is_named_and_set_aside_whole(
    queue: QueryQueue, meddler: Meddler, caplog: pytest.LogCaptureFixture
) -> None:
    stream_id = meddler.redis.xadd(meddler.key("answers"), {"ev": "answer", "how": "perhaps"})
    answered(queue, "a")
    assert names(events(queue)) == ["a"]
    assert stream_id in caplog.text
    assert "with how='perhaps'" in caplog.text
    ((_, kept),) = meddler.redis.xrange(meddler.key("aside"))
    assert (kept["id"], json.loads(kept["entry"])) == (
        stream_id,
        ["ev", "answer", "how", "perhaps"],
    )
    assert "perhaps" in kept["why"]
    assert (queue.stats().set_aside, queue.stats().unacked, queue.stats().backlog) == (1, 1, 1)
    assert events(again(queue)) != [], "the answer behind it is not acked yet; the entry is"
    assert queue.stats().set_aside == 1


def forged(**changes: str) -> dict[str, str]:
    """An entry as the queue writes it, but for these fields."""
    whole = {
        "ev": "answer",
        "id": "x",
        "by": "ann",
        "page": "p",
        "tok": "1",
        "rev": "1",
        "ans": "first",
        "how": "ok",
        "meta": "{}",
        "first": "a",
        "second": "b",
        "body": "{}",
        "made": "1700000000000",
    }
    return whole | changes


def test_a_whole_batch_of_odd_entries_hides_nothing_that_comes_after(
    queue: QueryQueue, meddler: Meddler
) -> None:
    odd = [
        forged(by="nobody at all"),
        forged(id=""),
        forged(second="a"),
        forged(first="a" * 301),
        forged(made="-1"),
        forged(meta='"text"'),
        forged(hidden="[]"),
        forged(tok="one"),
        forged(at="9" * 16),
        {"something": "else"},
    ]
    for entry in odd:
        meddler.redis.xadd(meddler.key("answers"), entry)
    answered(queue, "a")
    assert names(queue.events(consumer="trainer", count=3)) == ["a"]
    assert queue.stats().set_aside == len(odd)


def test_what_is_kept_of_odd_entries_is_bounded(
    queue: QueryQueue, meddler: Meddler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "ASIDE_ENTRIES", 3)
    monkeypatch.setattr(log, "ASIDE_BYTES", 500)
    for number in range(5):
        meddler.redis.xadd(meddler.key("answers"), {"number": str(number)})
    assert events(queue) == []
    kept = [
        json.loads(fields["entry"])[1] for _, fields in meddler.redis.xrange(meddler.key("aside"))
    ]
    assert (kept, queue.stats().set_aside) == (["2", "3", "4"], 5)
    for size in (200, 400):
        meddler.redis.xadd(meddler.key("answers"), {"number": "x" * size})
        assert events(queue) == []
    sizes = [
        len(json.loads(fields["entry"])[1])
        for _, fields in meddler.redis.xrange(meddler.key("aside"))
    ]
    assert sizes == [400]


def test_entries_of_a_dead_reader_that_were_trimmed_are_passed_over(
    queue: QueryQueue, meddler: Meddler
) -> None:
    answered(queue, "a", "b")
    first, _ = queue.events(consumer="dead")
    stream = meddler.key("answers")
    meddler.redis.xdel(stream, first.stream_id)
    for pending in meddler.redis.xpending_range(stream, "reward", "-", "+", 10):
        meddler.redis.xclaim(
            stream, "reward", "dead", 0, [pending["message_id"]], idle=61_000, justid=True
        )
    assert names(events(again(queue))) == ["b"]
