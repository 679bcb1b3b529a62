"""Answers about three and four candidates on disk, beside parts that were written when
all queries were pairs, and what exports make of them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rlhp.errors import RlhpError
from rlhp.preferences.answers import live, settle
from rlhp.preferences.dataset import PreferenceDataset, verify
from rlhp.preferences.events import EVENT_SCHEMA, EventRow, event_rows, event_table
from rlhp.preferences.exchange.label_studio import export_tasks
from rlhp.preferences.exchange.tables import Format, export
from rlhp.preferences.fresh import fresh_accuracy
from rlhp.preferences.parts import MERGED, Parts
from rlhp.preferences.quality import report
from rlhp.preferences.reuse import merge_into
from rlhp.types import Answer, comparison_id, query_id
from tests.preferences.dataset_samples import answer, header, segment

LATER = ("candidate_ids", "confidence", "predicted", "shown_order")
BEFORE = pa.schema([field for field in EVENT_SCHEMA if field.name not in LATER])


def best_of(numbers: list[int], said: Answer, **changes: object) -> EventRow:
    """What `ann` said about the segments of these numbers."""
    ids = tuple(segment(number).id for number in numbers)
    known = answer(segment(numbers[0]), segment(numbers[1]))
    query = query_id(run="r1", purpose="train", candidates=ids)
    return replace(known, query_id=query, candidate_ids=ids, answer=said, **changes)  # type: ignore[arg-type]


PAIR = answer(segment(0), segment(1), Answer.SECOND)
FOUR = best_of([2, 3, 4, 5], Answer.FOURTH, predicted=(0.125, 0.25, 0.5, 0.125))
THREE = best_of([6, 1, 0], Answer.TIE, shown_order=(2, 0, 1))


@pytest.fixture
def dataset(tmp_path: Path) -> PreferenceDataset:
    made = PreferenceDataset.create(tmp_path / "preferences", header=header())
    made.add_segments([segment(number) for number in range(7)])
    return made


def before(rows: list[EventRow]) -> pa.Table:
    """The same as a part of the version before had it."""
    return event_table(rows).select(BEFORE.names)


def test_ids_of_a_pair_are_what_they_were() -> None:
    assert query_id(run="r", purpose="train", candidates=("b", "a")) == (
        "c53b096b4e3afea68f9f6fbe1aeb480f"
    )
    assert comparison_id(("b", "a")) == comparison_id(["a", "b"]) == PAIR_ID
    assert comparison_id(("b", "a", "c")) == comparison_id(("c", "b", "a")) != PAIR_ID


PAIR_ID = "5ef4c21157c07778877c40808b66411f"


def test_answers_about_any_number_come_back_with_their_segments(dataset: PreferenceDataset) -> None:
    assert dataset.add_events([PAIR, FOUR, THREE]) == 3
    again = PreferenceDataset.open(dataset.path)
    assert again.events() == [PAIR, FOUR, THREE]
    pair, four, three = again.preferences()
    assert [each.id for each in four.candidates] == list(FOUR.candidate_ids)
    assert (pair.target, four.target) == ((0.0, 1.0), (0.0, 0.0, 0.0, 1.0))
    assert three.target == pytest.approx((1 / 3,) * 3)
    assert again.asked() == {comparison_id(row.candidate_ids) for row in (PAIR, FOUR, THREE)}
    assert verify(dataset.path) == []


def test_a_part_from_before_is_read_beside_new_ones_and_merged_with_them(
    dataset: PreferenceDataset,
) -> None:
    old = replace(PAIR, confidence=1, shown_order=(1, 0), predicted=(0.25, 0.75))
    old = replace(old, answer=Answer.FIRST)
    Parts(dataset.path / "events").append([before([old])], schema=BEFORE)
    again = PreferenceDataset.open(dataset.path)
    assert again.events() == [old]
    again.add_events([FOUR])
    for number in range(MERGED):
        again.add_events([replace(PAIR, query_id=f"q{number}")])
    assert PreferenceDataset.open(dataset.path).events()[:2] == [old, FOUR]
    assert len(list((dataset.path / "events").glob("part-*"))) < 10
    assert verify(dataset.path) == []


@pytest.mark.parametrize(
    ("strength", "said", "confidence"),
    [
        (0.5, Answer.FIRST, 3),
        (0.5, Answer.SECOND, 7),
        (1.0, Answer.SECOND, 9),
        (0.0, Answer.FIRST, 4),
        (0.5, Answer.TIE, None),
    ],
)
def test_a_strength_from_before_is_a_confidence(
    strength: float, said: Answer, confidence: int | None
) -> None:
    table = before([replace(PAIR, answer=said)])
    at = table.schema.get_field_index("strength")
    table = table.set_column(at, BEFORE.field("strength"), pa.array([strength], pa.float32()))
    whole = pa.Table.from_pylist(table.to_pylist(), EVENT_SCHEMA)
    (row,) = event_rows(whole)
    assert row.confidence == confidence


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidate_ids": ("a",)}, "shows 2 to 4 different candidates, got a"),
        ({"candidate_ids": ("a", "a")}, "shows 2 to 4 different candidates, got a, a"),
        ({"answer": Answer.THIRD}, "is one of first, second, tie, incomparable where 2"),
        ({"gold_answer": Answer.FOURTH}, "gold_answer is one of first, second, tie"),
        ({"shown_order": (0, 0)}, "shown_order has each place of 2 candidates once"),
        ({"predicted": (0.2, 0.2, 0.6)}, "one probability per candidate, got 3 for 2"),
        ({"confidence": 10}, "confidence in the answer to a pair is 1 to 9, got 10"),
    ],
)
def test_what_does_not_fit_the_number_of_candidates_is_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PAIR, **changes)  # type: ignore[arg-type]


def test_votes_settle_on_what_most_say_of_four() -> None:
    votes = [FOUR, replace(FOUR, labeler="bob"), replace(FOUR, labeler="eve", answer=Answer.FIRST)]
    (settled,) = settle(live(votes))
    assert settled.answer is Answer.FOURTH


def test_fresh_accuracy_goes_by_the_likeliest_of_all() -> None:
    third, fourth = replace(FOUR, answer=Answer.THIRD), replace(FOUR, query_id="x")
    unsure = replace(FOUR, query_id="y", predicted=(0.4, 0.1, 0.1, 0.4))
    found = fresh_accuracy([third, fourth, unsure, replace(FOUR, query_id="z", predicted=None)])
    assert (found.right, found.decisive) == (1 + 0 + 0.5 + 0.25, 4)


def test_a_repeat_in_another_order_is_the_same_answer() -> None:
    ids = FOUR.candidate_ids
    turned = replace(
        FOUR, query_id="again", candidate_ids=ids[::-1], purpose="repeat", predicted=None
    )
    (found,) = report([FOUR, replace(turned, answer=Answer.FIRST)])
    assert (found.repeats_same, found.repeats_asked, found.undecided) == (1, 1, 0)
    assert found.decisive == 0, "chance says a half of pairs alone"
    (found,) = report([FOUR, replace(turned, answer=Answer.FOURTH)])
    assert (found.repeats_same, found.repeats_asked) == (0, 1)


def test_answers_of_any_number_are_reused(dataset: PreferenceDataset, tmp_path: Path) -> None:
    dataset.add_events([PAIR, FOUR])
    target = PreferenceDataset.create(tmp_path / "other", header=header(run_ids=["r2"]))
    assert merge_into(target, dataset.path) == 2
    assert [len(each.candidates) for each in target.preferences()] == [2, 4]


@pytest.mark.parametrize("to", ["npz", "imitation"])
def test_a_format_of_pairs_leaves_the_others_out_and_counts_them(
    dataset: PreferenceDataset, tmp_path: Path, to: Format
) -> None:
    dataset.add_events([FOUR, THREE])
    with pytest.raises(RlhpError, match=r"holds pairs: all 2 answers .* export to jsonl or parq"):
        export(dataset.path, tmp_path / "none", to=to)
    dataset.add_events([PAIR])
    done = export(dataset.path, tmp_path / "out.npz", to=to)
    assert (done.preferences, done.wider) == (1, 2)
    with np.load(tmp_path / "out.npz") as found:
        assert found["query_ids"].tolist() == [PAIR.query_id]


def test_json_lines_and_parquet_hold_them_all(dataset: PreferenceDataset, tmp_path: Path) -> None:
    dataset.add_events([PAIR, FOUR])
    assert export(dataset.path, tmp_path / "lines", to="jsonl").wider == 0
    pair, four = map(json.loads, (tmp_path / "lines").read_text().splitlines())
    assert (pair["target"], four["target"]) == (0.0, [0.0, 0.0, 0.0, 1.0])
    assert {"first", "second", "third", "fourth"} <= four.keys()
    assert "third" not in pair
    export(dataset.path, tmp_path / "copy", to="parquet")
    assert PreferenceDataset.open(tmp_path / "copy").events() == [PAIR, FOUR]


def test_tasks_are_made_of_pairs_alone(dataset: PreferenceDataset, tmp_path: Path) -> None:
    dataset.add_events([PAIR, FOUR])
    done = export_tasks(dataset.path, tmp_path / "tasks", draw=lambda segment: b"clip")
    assert (done.tasks, done.clips, done.wider) == (1, 2, 1)
