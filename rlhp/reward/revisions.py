"""Two things that happened under one key: a queue that is older than the disk gave a revision out a second time.

The queue counts a labeler's revisions of an answer. Where Redis lost its newest seconds, it counts from before, and the
same labeler's next answer has the key of one that is on disk. It was taken with `ok`, so it is kept: as the newest
revision, which is the one that stands. An undo of it takes that one back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rlhp.reward.events import EventRow
from rlhp.reward.live import Key

log = logging.getLogger(__name__)


def unstored(rows: Iterable[EventRow], known: Mapping[Key, EventRow]) -> dict[Key, EventRow]:
    """The rows that are not `known`, by key and in order; one whose key another thing has gets a revision of its own.

    An entry of the answer log is the same thing where it has the same stream id: delivered twice, it is stored once.
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
    while (other := _revision(row, rev, row.event, stored)) or _revision(row, rev, "answer", stored):
        if other is not None and other.stream_id == row.stream_id:
            return None
        rev += 1
    if row.event == "answer":
        if rev > row.rev:
            log.warning(
                "query %s: the queue took revision %d of %s's answer a second time (Redis was older than the disk); "
                "kept as revision %d: %s", row.query_id, row.rev, row.labeler, rev, row.answer,
            )  # fmt: skip
        return replace(row, rev=rev)
    for later in range(row.rev, rev):  # what the labeler had said last by then is what is taken back
        answer = _revision(row, later, "answer", stored)
        if answer is not None and _order(answer.stream_id) < _order(row.stream_id):
            newest = later
    return None if _revision(row, newest, "retract", stored) else replace(row, rev=newest)


def _revision(row: EventRow, rev: int, event: str, stored: tuple[Mapping[Key, EventRow], ...]) -> EventRow | None:
    key = (row.query_id, row.labeler, rev, event)
    return next((rows[key] for rows in stored if key in rows), None)


def _order(stream_id: str | None) -> tuple[int, ...]:
    parts = (stream_id or "").split("-")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
