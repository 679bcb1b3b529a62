"""Queries of three and four candidates, and what was put when all queries were pairs."""

from __future__ import annotations

import json

import pytest

from rlhp.preferences.events import EventRow
from rlhp.queue.clips import SIDES
from rlhp.queue.queue import QueryQueue
from rlhp.types import Answer
from tests.queue.parts import Meddler, ask, events, say, take

FOUR = ("q-a", "q-b", "q-c", "q-d")


def test_four_candidates_are_leased_answered_and_logged_in_their_order(queue: QueryQueue) -> None:
    assert ask(queue, candidates=FOUR) == "ok"
    lease = take(queue)
    assert lease.candidates == FOUR
    assert list(queue.segments(lease.candidates)) == list(FOUR)
    assert say(queue, lease, answer="fourth") == "ok"
    (event,) = events(queue)
    assert (event.candidates, event.answer) == (FOUR, Answer.FOURTH)
    assert EventRow.of_event(event).candidate_ids == FOUR


def test_the_same_candidates_are_asked_once_in_whatever_order(queue: QueryQueue) -> None:
    ask(queue, candidates=FOUR)
    assert ask(queue, "other", candidates=FOUR[::-1]) == "dup"
    assert ask(queue, "less", candidates=FOUR[:3]) == "ok"
    assert ask(queue, "pair", candidates=FOUR[:2]) == "ok"


@pytest.mark.parametrize("ids", [("a",), ("a", "b", "c", "d", "e"), ("a", "b", "a")])
def test_too_few_too_many_and_one_twice_are_refused(
    queue: QueryQueue, ids: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="a query shows 2 to 4 different segments"):
        ask(queue, candidates=ids, payloads={})


def test_an_answer_beyond_the_candidates_is_refused_and_the_query_stays_open(
    queue: QueryQueue,
) -> None:
    ask(queue)
    lease = take(queue)
    with pytest.raises(ValueError, match="query q shows fewer candidates than the answer third"):
        say(queue, lease, answer="third")
    assert say(queue, lease, answer="second") == "ok"
    lookup = queue.lookup
    with pytest.raises(ValueError, match="query q shows fewer candidates than the answer fourth"):
        lookup.correct("q", labeler="ann", answer="fourth", meta={})
    assert (lookup.candidates("q"), lookup.candidates("unknown")) == (2, 0)
    assert [event.answer for event in events(queue)] == [Answer.SECOND]


def test_a_query_waits_for_the_clips_of_all_its_candidates(queue: QueryQueue) -> None:
    ask(queue, candidates=FOUR[:3], ready=False)
    clips = queue.clips
    (waiting,) = clips.waiting(5)
    assert waiting.candidates == FOUR[:3]
    for side in SIDES[:3]:
        assert queue.ready(query="q") == "noclip"
        clips.store(query="q", side=side, data=side.encode())
    assert queue.ready(query="q") == "ok"
    assert clips.room(1000) == 1000 - len("firstsecondthird")
    say(queue, take(queue))
    assert clips.room(0) == 0, "all three go"
    assert clips.fetch(query="q", side="third") is None


def as_it_was_put_before(queue: QueryQueue, meddler: Meddler, query: str = "q") -> None:
    """Its hash as the version had it in which all queries were pairs."""
    key = meddler.key(f"q:{query}")
    first, second = json.loads(meddler.redis.hget(key, "candidates"))
    body = json.loads(meddler.redis.hget(key, "body"))
    del body["candidates"]
    body |= {"schema": 1, "first": first, "second": second}
    meddler.redis.hset(key, mapping={"first": first, "second": second, "body": json.dumps(body)})
    meddler.redis.hdel(key, "candidates")


def test_a_pair_that_was_put_before_there_were_more_is_shown_answered_and_logged(
    queue: QueryQueue, meddler: Meddler
) -> None:
    ask(queue, ready=False)
    as_it_was_put_before(queue, meddler)
    clips = queue.clips
    (waiting,) = clips.waiting(5)
    assert waiting.candidates == ("q-a", "q-b")
    for side in SIDES[:2]:
        clips.store(query="q", side=side, data=b"x")
    assert queue.ready(query="q") == "ok"
    lookup = queue.lookup
    assert lookup.candidates("q") == 2
    lease = take(queue)
    assert lease.candidates == ("q-a", "q-b")
    assert say(queue, lease, answer="second") == "ok"
    (event,) = events(queue)
    assert (event.candidates, event.answer) == (("q-a", "q-b"), Answer.SECOND)


def test_an_entry_of_the_log_from_before_is_read(queue: QueryQueue, meddler: Meddler) -> None:
    entry = {
        "ev": "answer", "id": "q", "by": "ann", "page": "p", "tok": "1", "rev": "1",
        "ans": "first", "how": "ok", "first": "a", "second": "b", "made": "1700000000000",
        "meta": '{"shown_left": "second", "strength": 0.5, "kind": "human"}',
        "body": '{"schema": 1, "purpose": "train", "first": "a", "second": "b"}',
        "hidden": '{"predicted_first": 0.75}',
    }  # fmt: skip
    meddler.redis.xadd(meddler.key("answers"), entry)
    (event,) = events(queue)
    row = EventRow.of_event(event)
    assert (row.candidate_ids, row.answer) == (("a", "b"), Answer.FIRST)
    assert (row.shown_order, row.confidence, row.predicted) == ((1, 0), 3, (0.75, 0.25))
    assert row.note is None
