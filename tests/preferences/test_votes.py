"""Several answers to one query: which one the fit sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhp.preferences.answers import REUSED, answered, live, majority, settle
from rlhp.preferences.events import EventRow
from rlhp.types import Answer
from tests.preferences.dataset_samples import answer, segment
from tests.reward.trainer_parts import Run

FIRST, SECOND, TIE, INCOMPARABLE = Answer.FIRST, Answer.SECOND, Answer.TIE, Answer.INCOMPARABLE


@pytest.mark.parametrize(
    ("answers", "counts"),
    [
        ([FIRST], FIRST),
        ([SECOND, FIRST, SECOND], SECOND),
        ([FIRST, SECOND], TIE),
        ([FIRST, TIE], TIE),
        ([FIRST, FIRST, TIE, SECOND], FIRST),
        ([FIRST, FIRST, SECOND, SECOND, TIE], TIE),
        ([TIE, TIE, FIRST], TIE),
        ([INCOMPARABLE, INCOMPARABLE, SECOND], SECOND),
        ([INCOMPARABLE, FIRST, SECOND], TIE),
        ([INCOMPARABLE, INCOMPARABLE], INCOMPARABLE),
    ],
)
def test_the_majority_counts_and_a_tie_where_there_is_none(
    answers: list[Answer], counts: Answer
) -> None:
    assert majority(answers) is counts
    assert majority(reversed(answers)) is counts, "whoever came first"


def said(query: str, labeler: str, answer: Answer, **more: Any) -> EventRow:
    return EventRow(
        query_id=query,
        candidate_ids=("a", "b"),
        event="answer",
        answer=answer,
        labeler=labeler,
        rev=1,
        **more,
    )


def test_a_query_is_one_row_in_the_name_of_whoever_answered_it_first() -> None:
    rows = [
        said("q1", "ann", FIRST),
        said("q2", "ann", TIE),
        said("q1", "bob", SECOND),
        said("q1", "eve", SECOND),
    ]
    assert [(row.query_id, row.labeler, row.answer) for row in settle(rows)] == [
        ("q1", "ann", SECOND), ("q2", "ann", TIE),
    ]  # fmt: skip


def test_answers_after_the_last_vote_and_answers_taken_back_are_no_votes() -> None:
    rows = [
        said("q", "ann", FIRST), said("q", "bob", SECOND), said("q", "eve", SECOND, how="extra"),
        EventRow(query_id="q", candidate_ids=("a", "b"), event="retract", labeler="bob", rev=1),
    ]  # fmt: skip
    assert [row.answer for row in settle(live(rows))] == [FIRST]


def test_a_query_is_answered_once_however_many_labelers_there_were() -> None:
    rows = [
        said("q1", "ann", FIRST),
        said("q1", "bob", FIRST),
        said("q2", "ann", FIRST, note=f"{REUSED}other"),
    ]
    assert answered(settle(rows)) == 1


def test_the_fit_sees_the_majority_and_thinks_again_when_a_later_vote_changes_it(
    redis_url: str, tmp_path: Path
) -> None:
    run = Run(redis_url, tmp_path)
    store, pair = run.dataset(), (segment(0), segment(1))
    store.add_segments(pair)
    trainer = run.trainer()
    for labeler, vote, target in [
        ("ann", "first", 1.0),
        ("bob", "second", 0.5),
        ("eve", "second", 0.0),
    ]:
        store.add_events([answer(*pair, Answer(vote), labeler=labeler)])
        trainer._take_in()
        assert trainer.status().trainable == 1
        assert trainer.status().answered == 1
        assert trainer._fitter._examples.target.tolist() == [[target, 1 - target]]
