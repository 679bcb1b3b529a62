"""Which answers stand: the rule that turns a log of events into the answers to train
on.

Several labelers on one query: which answer counts.

All answers are stored. The fit sees one per query: what most labelers said, or a tie
where no answer is ahead of all others. `incomparable` is no vote, unless nobody said
anything else. A query counts from its first answer on, and a later one may change what
it says. Labelers who seem to guess have less than a vote, or none (see `quality`).

Two things that happened under one key: a queue that is older than the disk gave a
revision out a second time.

The queue counts a labeler's revisions of an answer. Where Redis lost its newest
seconds, it counts from before, and the same labeler's next answer has the key of one
that is on disk. It was taken with `ok`, so it is kept: as the newest revision, which is
the one that stands. An undo of it takes that one back.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat

from rlhp.preferences.events import EventRow, Purpose
from rlhp.types import Answer

Key = tuple[str, str | None, int, str]
"""(query, labeler, rev, event): what an event is known by."""

REUSED = "reused from "
"""How the note of an event begins that was copied from another dataset."""


def live(
    rows: Iterable[EventRow], *, purpose: Purpose | None = "train", extra: bool = False
) -> list[EventRow]:
    """The answers that stand: per query and labeler the highest rev not retracted,
    `extra` ones left out.

    Ordered by the first answer of that labeler to that query, so a second thought keeps
    its place. `purpose=None` takes all; `extra=True` too the answers that came when a
    query was settled, which are only compared.
    """
    rows = list(rows)
    retracted = {(row.query_id, row.labeler, row.rev) for row in rows if row.event == "retract"}
    best: dict[tuple[str, str | None], EventRow | None] = {}
    for row in rows:
        if (
            row.event != "answer"
            or (row.how == "extra" and not extra)
            or purpose not in (None, row.purpose)
        ):
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
    """Queries heard of, answers that stand (by kind, whatever their purpose), and what
    does not count.
    """
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


def settle(
    rows: Iterable[EventRow], *, weights: Mapping[str, float] | None = None
) -> list[EventRow]:
    """One row per query of `live` answers, in the order of its first answer and in that
    labeler's name.

    `weights` has the labelers whose vote is not a whole one; those with none are left
    out.
    """
    weights = weights or {}
    return [
        answers[0] if len(answers) == 1 else replace(answers[0], answer=_agreed(answers, weights))
        for answers in _by_query(rows, weights).values()
    ]


def doubts(rows: Iterable[EventRow], *, weights: Mapping[str, float]) -> dict[str, float]:
    """How much a query counts in the fit, where that is less than 1: the votes of those
    who answered it, added up.
    """
    totals = {
        query: sum(weights.get(row.labeler or "", 1.0) for row in answers)
        for query, answers in _by_query(rows, weights).items()
    }
    return {query: total for query, total in totals.items() if total < 1}


def _by_query(rows: Iterable[EventRow], weights: Mapping[str, float]) -> dict[str, list[EventRow]]:
    by_query: dict[str, list[EventRow]] = {}
    for row in rows:
        if weights.get(row.labeler or "", 1.0) > 0:
            by_query.setdefault(row.query_id, []).append(row)
    return by_query


def _agreed(rows: Sequence[EventRow], weights: Mapping[str, float]) -> Answer:
    return majority(
        (row.answer for row in rows), each=(weights.get(row.labeler or "", 1.0) for row in rows)
    )


def majority(answers: Iterable[Answer | None], *, each: Iterable[float] = repeat(1.0)) -> Answer:
    """What most of them say: a tie where several are equally many, `incomparable` where
    nobody compared.

    `each` is what their votes are worth.
    """
    votes: dict[Answer, float] = {}
    for answer, worth in zip(answers, each, strict=False):
        if answer is not None and answer is not Answer.INCOMPARABLE:
            votes[answer] = votes.get(answer, 0.0) + worth
    if not votes:
        return Answer.INCOMPARABLE
    most = max(votes.values())
    ahead = [answer for answer, count in votes.items() if count == most]
    return ahead[0] if len(ahead) == 1 else Answer.TIE


def answered(rows: Iterable[EventRow]) -> int:
    """Queries of this run's own that settled rows answer: what was copied from another
    run cost no budget.
    """
    return sum(not is_reused(row) for row in rows)


log = logging.getLogger(__name__)


def unstored(rows: Iterable[EventRow], known: Mapping[Key, EventRow]) -> dict[Key, EventRow]:
    """The rows that are not `known`, by key and in order; one whose key another thing
    has gets a revision of its own.

    An entry of the answer log is the same thing where it has the same stream id:
    delivered twice, it is stored once.
    """
    new: dict[Key, EventRow] = {}
    for row in rows:
        renumbered = _renumbered(row, (new, known))
        if renumbered is not None:
            new[renumbered.key] = renumbered
    return new


def _renumbered(row: EventRow, stored: tuple[Mapping[Key, EventRow], ...]) -> EventRow | None:
    """The row under the revision that it has on disk; None where it is there."""
    if row.stream_id is None or row.event not in ("answer", "retract"):
        return None if _revision(row, row.rev, row.event, stored) else row
    rev, newest = row.rev, row.rev
    while (other := _revision(row, rev, row.event, stored)) or _revision(
        row, rev, "answer", stored
    ):
        if other is not None and other.stream_id == row.stream_id:
            return None
        rev += 1
    if row.event == "answer":
        if rev > row.rev:
            log.warning(
                "query %s: the queue took revision %d of %s's answer a second time (Redis was "
                "older than the disk); kept as revision %d: %s",
                row.query_id,
                row.rev,
                row.labeler,
                rev,
                row.answer,
            )
        return replace(row, rev=rev)
    # what the labeler had said last by then is what is taken back
    for later in range(row.rev, rev):
        answer = _revision(row, later, "answer", stored)
        if answer is not None and _order(answer.stream_id) < _order(row.stream_id):
            newest = later
    return None if _revision(row, newest, "retract", stored) else replace(row, rev=newest)


def _revision(
    row: EventRow, rev: int, event: str, stored: tuple[Mapping[Key, EventRow], ...]
) -> EventRow | None:
    key = (row.query_id, row.labeler, rev, event)
    return next((rows[key] for rows in stored if key in rows), None)


def _order(stream_id: str | None) -> tuple[int, ...]:
    parts = (stream_id or "").split("-")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
