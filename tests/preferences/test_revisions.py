"""What a queue that is older than the disk says under a key that is taken: kept as a
revision of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlhp.preferences.dataset import PreferenceDataset
from rlhp.preferences.events import EventRow
from rlhp.types import Answer
from tests.preferences.dataset_samples import PLAIN, header

FIRST, SECOND, TIE = Answer.FIRST, Answer.SECOND, Answer.TIE


def said(answer: Answer | None, *, rev: int = 1, at: int) -> EventRow:
    """Ann's answer to one query, or its retract, as the queue recorded it at this
    moment.
    """
    return EventRow(
        query_id="q",
        candidate_ids=("a", "b"),
        event="answer" if answer else "retract",
        answer=answer,
        labeler="ann",
        rev=rev,
        stream_id=f"{at}-0",
    )


def took_back(rev: int, *, at: int) -> EventRow:
    return said(None, rev=rev, at=at)


@pytest.fixture
def dataset(tmp_path: Path) -> PreferenceDataset:
    return PreferenceDataset.create(tmp_path / "preferences", header=header(PLAIN))


def standing(dataset: PreferenceDataset) -> list[tuple[int, Answer | None]]:
    """What counts, also for who opens the dataset anew."""
    rows = [(row.rev, row.answer) for row in dataset.live()]
    assert rows == [(row.rev, row.answer) for row in PreferenceDataset.open(dataset.path).live()]
    return rows


def test_another_answer_under_a_taken_key_is_the_newest_revision(
    dataset: PreferenceDataset, caplog: pytest.LogCaptureFixture
) -> None:
    dataset.add_events([said(FIRST, at=10)])
    again = said(SECOND, at=20)
    assert dataset.add_events([again, again]) == 1
    assert standing(dataset) == [(2, SECOND)]
    assert "query q" in caplog.text
    assert "revision 1 of ann's answer" in caplog.text
    assert dataset.add_events([again]) == 0, "delivered twice, it is stored once"
    assert PreferenceDataset.open(dataset.path).add_events([again]) == 0
    assert dataset.add_events([said(TIE, rev=2, at=30)]) == 1
    assert standing(dataset) == [(3, TIE)]


def test_an_undo_takes_back_what_was_said_last_under_whatever_revision(
    dataset: PreferenceDataset,
) -> None:
    dataset.add_events([said(FIRST, at=10), took_back(1, at=11), said(SECOND, rev=2, at=12)])
    assert (
        dataset.add_events([said(TIE, at=20), took_back(1, at=21), said(FIRST, rev=2, at=22)]) == 3
    )
    assert standing(dataset) == [(4, FIRST)]
    assert dataset.add_events([took_back(1, at=21), said(FIRST, rev=2, at=22)]) == 0
    assert dataset.add_events([took_back(2, at=31)]) == 1
    assert standing(dataset) == [(2, SECOND)]


def test_an_undo_that_is_stored_late_takes_back_what_it_was_about(
    dataset: PreferenceDataset,
) -> None:
    dataset.add_events([said(FIRST, at=10), said(SECOND, rev=2, at=12)])
    dataset.add_events([took_back(1, at=11)])
    assert standing(dataset) == [(2, SECOND)]


def test_rows_that_came_by_no_queue_are_known_by_their_key_alone(
    dataset: PreferenceDataset,
) -> None:
    imported = replace(said(FIRST, at=1), stream_id=None)
    assert dataset.add_events([imported, replace(imported, answer=SECOND)]) == 1
    assert standing(dataset) == [(1, FIRST)]
