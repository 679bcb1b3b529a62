"""Votes of labelers who seem to guess: less than one, or none."""

from __future__ import annotations

import pytest

from rlhp.preferences.answers import doubts, majority, settle
from rlhp.preferences.events import EventRow
from rlhp.types import Answer
from tests.preferences.dataset_samples import answer, segment

FIRST, SECOND, TIE = Answer.FIRST, Answer.SECOND, Answer.TIE


def votes(**said: Answer) -> list[EventRow]:
    return [answer(segment(0), segment(1), each, labeler=who) for who, each in said.items()]


def test_two_guessers_do_not_outvote_one_careful_labeler() -> None:
    rows = votes(ann=FIRST, bob=SECOND, eve=SECOND)
    assert [row.answer for row in settle(rows)] == [SECOND]
    assert [row.answer for row in settle(rows, weights={"bob": 0.2, "eve": 0.3})] == [FIRST]
    assert [row.answer for row in settle(rows, weights={"bob": 0.5, "eve": 0.5})] == [TIE]


def test_without_a_vote_an_answer_is_left_out_and_its_query_with_it() -> None:
    rows = votes(eve=SECOND, ann=FIRST)
    assert [(row.answer, row.labeler) for row in settle(rows, weights={"eve": 0.0})] == [
        (FIRST, "ann")
    ]
    assert settle(votes(eve=SECOND), weights={"eve": 0.0}) == []


def test_a_query_counts_as_much_as_its_voters_together_and_never_more_than_in_full() -> None:
    rows = votes(bob=FIRST, eve=FIRST)
    (query,) = {row.query_id for row in rows}
    assert doubts(rows, weights={"bob": 0.25, "eve": 0.25}) == {query: 0.5}
    assert doubts(rows, weights={"bob": 0.25}) == {}
    assert doubts(rows, weights={"bob": 0.0, "eve": 0.125}) == {query: pytest.approx(0.125)}
    assert doubts(rows, weights={}) == {}


def test_a_majority_may_weigh_votes() -> None:
    assert majority([FIRST, SECOND], each=[0.5, 1.0]) is SECOND
    assert majority([FIRST, SECOND]) is TIE
    assert majority([Answer.INCOMPARABLE, FIRST], each=[1.0, 0.1]) is FIRST
