"""Fresh accuracy: predictions beside the answers that came after them."""

from __future__ import annotations

from typing import Any

import pytest

from rlhp.preferences.events import EventRow
from rlhp.preferences.fresh import by_age, by_version, fresh_accuracy, predicted
from rlhp.types import Answer

FIRST, SECOND, TIE, INCOMPARABLE = Answer.FIRST, Answer.SECOND, Answer.TIE, Answer.INCOMPARABLE


def row(number: int, p_first: float | None, said: Answer, **changes: Any) -> EventRow:
    known: dict[str, Any] = {
        "query_id": f"q{number}",
        "candidate_ids": (f"a{number}", f"b{number}"),
        "event": "answer",
        "answer": said,
        "labeler": "ann",
        "strategy": "random",
        "predicted": None if p_first is None else (p_first, 1 - p_first),
        "selected_version": 1,
    }
    return EventRow(**(known | changes))


def test_a_prediction_is_right_or_wrong_and_one_half_is_half_right() -> None:
    found = fresh_accuracy(
        [row(0, 0.9, FIRST), row(1, 0.9, SECOND), row(2, 0.1, SECOND), row(3, 0.5, FIRST)]
    )
    assert (found.right, found.decisive) == (2.5, 4)
    assert found.accuracy == 0.625
    low, high = found.interval
    assert 0.2 < low < 0.625 < high < 0.95


def test_ties_and_incomparable_are_counted_apart() -> None:
    found = fresh_accuracy(
        [row(0, 0.9, FIRST), row(1, 0.9, TIE), row(2, 0.9, TIE), row(3, 0.2, INCOMPARABLE)]
    )
    assert (found.decisive, found.ties, found.incomparable) == (1, 2, 1)
    assert found.accuracy == 1.0


def test_nothing_is_said_of_no_answers() -> None:
    found = fresh_accuracy([])
    assert found.accuracy is None
    assert found.interval == (0.0, 1.0)


def test_answers_that_no_version_predicted_and_checks_do_not_count() -> None:
    rows = [
        row(0, None, FIRST),
        row(1, 0.8, FIRST, purpose="gold", gold_answer=FIRST),
        row(2, 0.8, FIRST),
    ]
    assert [each.query_id for each in predicted(rows)] == ["q2"]


def test_answers_of_another_run_say_nothing_about_this_one() -> None:
    assert predicted([row(1, 0.9, Answer.FIRST, note="reused from other")]) == []


def test_of_chosen_and_random_pairs_the_random_ones_alone_count() -> None:
    chosen = [row(k, 0.6, SECOND, strategy="disagreement") for k in range(3)]
    assert len(predicted(chosen)) == 3, "nothing was drawn at random"
    assert [each.query_id for each in predicted([*chosen, row(9, 0.6, FIRST)])] == ["q9"]


def test_by_version_tells_which_version_predicted() -> None:
    rows = [
        row(0, 0.9, FIRST, selected_version=2),
        row(1, 0.9, SECOND, selected_version=1),
        row(2, 0.9, FIRST),
    ]
    found = by_version(rows)
    assert list(found) == [1, 2]
    assert [share.accuracy for share in found.values()] == [0.5, 1.0]


def test_by_age_splits_at_the_median_age_of_the_older_segment() -> None:
    ages = [10, 500, 20, 400]
    rows = [
        row(k, 0.9, FIRST if age < 100 else SECOND, env_steps=1000) for k, age in enumerate(ages)
    ]
    cut_at = {f"a{k}": 1000 - age for k, age in enumerate(ages)} | {f"b{k}": 1000 for k in range(4)}
    young, old = by_age([*rows, row(7, 0.9, FIRST)], cut_at)
    assert (young.accuracy, old.accuracy) == (1.0, 0.0)
    assert young.decisive + old.decisive == 4, (
        "of a pair whose segments are not known nothing is said"
    )


@pytest.mark.parametrize("answers", [12, 60])
def test_the_interval_holds_what_a_coin_gives(answers: int) -> None:
    said = [FIRST if k % 2 else SECOND for k in range(answers)]
    low, high = fresh_accuracy([row(k, 0.7, each) for k, each in enumerate(said)]).interval
    assert low < 0.5 < high
