"""Which answers stand: the rule that turns a log of events into the answers to train on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from rlhp.reward.events import EventRow, Purpose
from rlhp.types import Answer

Key = tuple[str, str | None, int, str]
"""(query, labeler, rev, event): what an event is known by."""

REUSED = "reused from "
"""How the note of an event begins that was copied from another dataset."""


def live(rows: Iterable[EventRow], *, purpose: Purpose | None = "train", extra: bool = False) -> list[EventRow]:
    """The answers that stand: per query and labeler the highest rev not retracted, `extra` ones left out.

    Ordered by the first answer of that labeler to that query, so a second thought keeps its place.
    `purpose=None` takes all; `extra=True` too the answers that came when a query was settled, which are only compared.
    """
    rows = list(rows)
    retracted = {(row.query_id, row.labeler, row.rev) for row in rows if row.event == "retract"}
    best: dict[tuple[str, str | None], EventRow | None] = {}
    for row in rows:
        if row.event != "answer" or (row.how == "extra" and not extra) or purpose not in (None, row.purpose):
            continue
        present = best.setdefault((row.query_id, row.labeler), None)
        stands = (row.query_id, row.labeler, row.rev) not in retracted
        if stands and (present is None or row.rev > present.rev):
            best[row.query_id, row.labeler] = row
    return [row for row in best.values() if row is not None]


def is_reused(row: EventRow) -> bool:
    """Whether another run was given this answer."""
    return (row.note or "").startswith(REUSED)


def is_corrected(row: EventRow) -> bool:
    """Whether an admin put this answer in the place of the labeler's own."""
    try:
        said = json.loads(row.note) if row.note else {}
    except ValueError:
        return False
    return isinstance(said, dict) and "corrected_by" in said


def count(rows: Iterable[EventRow]) -> dict[str, int]:
    """Queries heard of, answers that stand (by kind, whatever their purpose), and what does not count."""
    rows = list(rows)
    standing = live(rows, purpose=None)
    answers = Counter(row.answer for row in standing)
    events = Counter(row.event for row in rows)
    return {
        "queries": len({row.query_id for row in rows}),
        "answers": len(standing),
        "first": answers[Answer.FIRST],
        "second": answers[Answer.SECOND],
        "ties": answers[Answer.TIE],
        "incomparable": answers[Answer.INCOMPARABLE],
        "late": sum(row.how == "late" for row in standing),
        "reused": sum(is_reused(row) for row in standing),
        "extra": sum(row.event == "answer" and row.how == "extra" for row in rows),
        "retracted": events["retract"],
        "skips": events["skip"],
        "drops": events["drop"],
    }
