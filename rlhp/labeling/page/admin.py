"""The routes of an admin: everybody's work, every answer that stands, and its
correction.

What an admin sees: everybody's work, every answer that stands, and what a correction
does.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query, Response

from rlhp.labeling.page.desk import Desk
from rlhp.labeling.page.messages import (
    ClipPair,
    Corrected,
    Correction,
    LabelerRow,
    LabelerRows,
    PreferenceRow,
    PreferenceRows,
)
from rlhp.labeling.page.routes import Admin, QueryPath, TheDesk, media_type
from rlhp.preferences.answers import live
from rlhp.preferences.events import EventRow
from rlhp.preferences.quality import LabelerReport
from rlhp.queue.accounts import Labeler
from rlhp.queue.queue import explain
from rlhp.queue.records import LabelerStats
from rlhp.types import Answer


def preference_rows(
    desk: Desk, *, labeler: str | None, answer: Answer | None
) -> list[PreferenceRow]:
    """The answers that stand, of this labeler and of this kind where one is given,
    newest first.
    """
    standing = live(desk.log.rows(), purpose=None)
    chosen = [
        row for row in standing if labeler in (None, row.labeler) and answer in (None, row.answer)
    ]
    chosen.sort(
        key=lambda row: row.answered_at.timestamp() if row.answered_at else 0.0, reverse=True
    )
    return [_preference(row) for row in chosen]


def corrected(desk: Desk, me: Labeler, said: Corrected) -> Correction:
    """Put another answer in the place of a labeler's."""
    status = desk.queue.lookup.correct(
        said.query,
        labeler=said.labeler,
        answer=said.answer,
        meta={"kind": "human", "corrected_by": me.name},
        log=desk.log.rows,
    )
    return Correction(status=status, message=explain(status))


def labeler_rows(desk: Desk) -> list[LabelerRow]:
    """Everybody who answered, was seen or has a token, by name."""
    stats, pauses = desk.queue.stats().labelers, desk.queue.pauses.all()
    pardoned = [name for name, reason in pauses.items() if not reason]
    reports = {each.name: each for each in desk.log.reports(trusted=pardoned)}
    names = sorted({*stats, *reports, *(labeler.name for labeler in desk.queue.accounts.all())})
    return [
        _labeler(name, stats.get(name), reports.get(name), paused=pauses.get(name, ""))
        for name in names
    ]


def _labeler(
    name: str, stats: LabelerStats | None, found: LabelerReport | None, *, paused: str
) -> LabelerRow:
    known = stats if stats is not None else LabelerStats()
    return LabelerRow(
        name=name,
        ok=known.ok,
        late=known.late,
        extra=known.extra,
        skipped=known.skipped,
        side_bias=found.side_bias if found else None,
        gold_right=found.gold_right if found else 0,
        gold_asked=found.gold_asked if found else 0,
        agreement=found.agreement if found else None,
        median_seconds=found.median_seconds if found else None,
        weight=found.weight if found else 1.0,
        state="paused" if paused else found.state if found else "ok",
        reason=paused or (found.reason if found else ""),
        idle_seconds=stats.idle_seconds if stats is not None else None,
    )


def _preference(row: EventRow) -> PreferenceRow:
    assert row.answer is not None
    return PreferenceRow(
        query=row.query_id,
        labeler=row.labeler or "",
        choice=row.answer,
        at=row.answered_at.isoformat() if row.answered_at else "",
        shown_left=row.shown_left,
        latency_ms=row.latency_ms,
        strength=row.strength,
        note=_note(row.note),
        clips=ClipPair(
            first=f"/api/admin/clips/{row.query_id}/first",
            second=f"/api/admin/clips/{row.query_id}/second",
        ),
    )


def _note(stored: str | None) -> str | None:
    """What the labeler wrote, out of what the dataset keeps of an answer beside its
    columns.
    """
    if stored is None:
        return None
    try:
        found = json.loads(stored)
    except ValueError:
        return stored
    return str(found["note"]) if isinstance(found, dict) and "note" in found else None


router = APIRouter(prefix="/api/admin", tags=["admin"])


@router.get("/labelers")
def labelers(desk: TheDesk, me: Admin) -> LabelerRows:
    """Everybody who was seen in this run or has a token."""
    return LabelerRows(labelers=labeler_rows(desk))


@router.get("/preferences")
def preferences(
    desk: TheDesk,
    me: Admin,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    labeler: Annotated[str | None, Query(max_length=80)] = None,
    answer: Answer | None = None,
) -> PreferenceRows:
    """The answers that stand, newest first."""
    rows = preference_rows(desk, labeler=labeler, answer=answer)
    return PreferenceRows(total=len(rows), items=rows[offset : offset + limit])


@router.post("/preferences/correct")
def correct(said: Corrected, desk: TheDesk, me: Admin) -> Correction:
    """Put another answer in the place of a labeler's: a retract and a new revision,
    both in the log.
    """
    return corrected(desk, me, said)


@router.get("/clips/{query}/{side}", response_class=Response)
def clip(query: QueryPath, side: Literal["first", "second"], desk: TheDesk, me: Admin) -> Response:
    """A video of any query, as long as it is kept."""
    data = desk.queue.clips.fetch(query=query, side=side)
    if data is None:
        raise HTTPException(
            404, "there is no such clip; those of finished queries are kept for half an hour"
        )
    return Response(
        data, media_type=media_type(data), headers={"Cache-Control": "private, no-store"}
    )
