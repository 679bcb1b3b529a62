"""The routes of an admin: everybody's work, every answer that stands, and its correction."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query, Response

from rlhp.labeling.page.messages import Corrected, Correction, LabelerRows, PreferenceRows
from rlhp.labeling.page.review import corrected, labeler_rows, preference_rows
from rlhp.labeling.page.routes import Admin, QueryPath, TheDesk
from rlhp.labeling.page.video import media_type
from rlhp.types import Answer

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
    """Put another answer in the place of a labeler's: a retract and a new revision, both in the log."""
    return corrected(desk, me, said)


@router.get("/clips/{query}/{side}", response_class=Response)
def clip(query: QueryPath, side: Literal["first", "second"], desk: TheDesk, me: Admin) -> Response:
    """A video of any query, as long as it is kept."""
    data = desk.clips.fetch(query=query, side=side)
    if data is None:
        raise HTTPException(404, "there is no such clip; those of finished queries are kept for half an hour")
    return Response(data, media_type=media_type(data), headers={"Cache-Control": "private, no-store"})
