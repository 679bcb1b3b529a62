"""Events: from an entry of the answer stream to the answers that stand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from rlhp.preferences.answers import live
from rlhp.preferences.events import EventRow, event_rows, event_table
from rlhp.queue.records import Event
from rlhp.types import Answer
from tests.preferences.dataset_samples import answer, segment

FIRST = answer(segment(0), segment(1))
SECOND = replace(FIRST, answer=Answer.SECOND, rev=2)
RETRACT = replace(FIRST, event="retract", answer=None)
EXTRA = replace(FIRST, how="extra")
BOB = replace(FIRST, labeler="bob", answer=Answer.TIE)


@pytest.mark.parametrize(
    ("rows", "standing"),
    [
        ([FIRST], [FIRST]),
        ([FIRST, RETRACT], []),
        ([RETRACT, FIRST], []),  # delivered out of order
        ([FIRST, RETRACT, SECOND], [SECOND]),
        ([SECOND, FIRST], [SECOND]),
        ([FIRST, SECOND, replace(RETRACT, rev=2)], [FIRST]),
        ([FIRST, RETRACT, SECOND, replace(RETRACT, rev=2)], []),
        ([EXTRA], []),
        ([FIRST, replace(SECOND, how="extra")], [FIRST]),
        ([BOB, FIRST], [BOB, FIRST]),  # two labelers, two preferences
        ([FIRST, BOB, RETRACT, SECOND], [SECOND, BOB]),  # a second thought keeps its place
        ([replace(FIRST, purpose="gold")], []),
        ([replace(FIRST, event="skip", answer=None)], []),
    ],
)
def test_the_highest_rev_not_retracted_stands(
    rows: list[EventRow], standing: list[EventRow]
) -> None:
    assert live(rows) == standing


def test_every_purpose_stands_when_none_is_named() -> None:
    gold = replace(FIRST, purpose="gold")
    assert live([gold], purpose="gold") == live([gold], purpose=None) == [gold]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event": "vote"}, "event is one of answer, retract, skip, drop; got 'vote'"),
        ({"labeler_kind": "cat"}, "labeler_kind is one of human, teacher, script; got 'cat'"),
        (
            {"answer": None},
            "an `answer` event and only that carries an answer; got event=answer, answer=None",
        ),
        ({"labeler": None}, "nobody drops; got event=answer, labeler=None"),
        ({"made_at": datetime(2026, 1, 1)}, "made_at needs a time zone"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FIRST, **changes)


def test_times_keep_their_milliseconds() -> None:
    moment = datetime(2026, 3, 1, 12, 30, 15, 250_000, UTC)
    row = replace(FIRST, made_at=moment, shown_at=moment, answered_at=moment)
    assert list(event_rows(event_table([row]))) == [row]


def test_p_first_is_the_target() -> None:
    rows = [FIRST, SECOND, BOB, replace(BOB, rev=2, answer=Answer.INCOMPARABLE)]
    assert event_table(rows)["p_first"].to_pylist() == [1.0, 0.0, 0.5, None]


ENTRY = Event(
    stream_id="1767225600123-0",
    event="answer",
    query="q",
    labeler="ann",
    page="p",
    answer=Answer.SECOND,
    rev=1,
    how="late",
    token=4,
    meta={},
    body={},
    candidates=("a", "b"),
    made_ms=1767225600000,
)


def test_an_entry_of_the_stream_becomes_a_row() -> None:
    entry = replace(
        ENTRY,
        meta={
            "kind": "teacher",
            "latency_ms": 12,
            "strength": 0.75,
            "shown_left": "second",
            "replays": 1,
        },
        body={
            "purpose": "gold",
            "strategy": "disagreement",
            "score": 0.5,
            "reward_version": 3,
            "env_steps": 9,
        },
        hidden={"gold": "first", "predicted_first": 0.25},
    )
    assert EventRow.of_event(entry) == EventRow(
        query_id="q",
        candidate_ids=("a", "b"),
        event="answer",
        answer=Answer.SECOND,
        confidence=8,
        labeler="ann",
        labeler_kind="teacher",
        rev=1,
        how="late",
        purpose="gold",
        strategy="disagreement",
        score=0.5,
        selected_version=3,
        gold_answer=Answer.FIRST,
        predicted=(0.25, 0.75),
        env_steps=9,
        made_at=datetime(2026, 1, 1, tzinfo=UTC),
        answered_at=datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC),
        latency_ms=12,
        shown_order=(1, 0),
        replays=1,
        stream_id="1767225600123-0",
    )


def test_a_drop_has_no_labeler_and_a_skip_no_answer() -> None:
    drop = EventRow.of_event(replace(ENTRY, event="drop", labeler="", answer=None, rev=0, how=None))
    assert (drop.labeler, drop.answer, drop.how) == (None, None, "ok")
    assert EventRow.of_event(replace(ENTRY, event="skip", answer=None, rev=0)).labeler == "ann"


def test_what_a_labeler_said_beyond_the_columns_is_kept_as_a_note() -> None:
    meta = {
        "kind": "cat",
        "latency_ms": -4,
        "replays": True,
        "strength": 2,
        "comment": "both fall",
        "shown_left": "first",
    }
    row = EventRow.of_event(replace(ENTRY, meta=meta))
    assert (row.labeler_kind, row.latency_ms, row.replays, row.confidence, row.shown_left) == (
        None,
        None,
        0,
        None,
        "first",
    )
    assert (
        row.note == '{"kind": "cat", "latency_ms": -4, "replays": true, "strength": 2, '
        '"comment": "both fall"}'
    )
