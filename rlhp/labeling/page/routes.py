"""The routes of a labeler: session, run, leases, answers, skips, undo, progress, clips.

The cookie of a session: it is the labeler's token, so a session outlives the server and
ends with the token.

What kind of video some bytes are, by their first few.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response

from rlhp.errors import RlhpError
from rlhp.labeling.page.desk import Desk
from rlhp.labeling.page.messages import (
    Answered,
    Extended,
    Leases,
    LogIn,
    OnScreen,
    Outcome,
    Page,
    Progress,
    Released,
    Run,
    SkipOutcome,
    Skipped,
    Undone,
    UndoOutcome,
    Who,
)
from rlhp.queue.accounts import Labeler
from rlhp.types import digest


def cookie_name(run: str) -> str:
    """One per run: a browser sends the cookies of a host to all of its ports, so two
    runs would fight over one.
    """
    return f"rlhp_session_{digest('session', run)[:8]}"


def media_type(data: bytes) -> str:
    """WebM, MP4 or PNG (an animated one); anything else is a download, which no browser
    runs.
    """
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm"
    if data[4:8] == b"ftyp":
        return "video/mp4"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    return "application/octet-stream"


SESSION_SECONDS = 30 * 24 * 3600

router = APIRouter(prefix="/api", tags=["labeling"])


def desk_of(request: Request) -> Desk:
    """The desk that the application was made with."""
    desk: Desk = request.app.state.desk
    return desk


def me_of(request: Request) -> Labeler:
    """Who asks: the guard has seen to it."""
    me: Labeler = request.state.me
    return me


def admin_of(request: Request) -> Labeler:
    """Who asks, if an admin; 403 else."""
    me = me_of(request)
    if not me.admin:
        raise HTTPException(403, "this is for admins: rlhp labeler add NAME --admin makes one")
    return me


TheDesk = Annotated[Desk, Depends(desk_of)]
Me = Annotated[Labeler, Depends(me_of)]
Admin = Annotated[Labeler, Depends(admin_of)]
QueryPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", max_length=128)]


@router.post("/session")
def log_in(said: LogIn, desk: TheDesk, request: Request, response: Response) -> Who:
    """Exchange the token of the address bar for a cookie that scripts cannot read."""
    me = desk.who(said.token)
    if me is None:
        raise HTTPException(
            401, "this token is not (or no longer) known here; ask whoever runs this for another"
        )
    response.set_cookie(
        cookie_name(desk.place.run),
        said.token,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return Who(labeler=me.name, admin=me.admin)


@router.get("/run")
def run(desk: TheDesk, me: Me) -> Run:
    """The run, and how its page behaves."""
    return desk.run(me)


@router.get("/progress")
def progress(desk: TheDesk, me: Me) -> Progress:
    """How far the run and this labeler are."""
    return desk.progress(me)


@router.post("/leases")
def lease(said: Page, desk: TheDesk, me: Me) -> Leases:
    """Up to two queries for this page, those that it holds included and renewed."""
    return desk.lease(me, page=said.page)


@router.post("/leases/extend")
def extend(said: Page, desk: TheDesk, me: Me) -> Extended:
    """Heartbeat: a new deadline for all that this page holds."""
    return Extended(extended=desk.extend(me, page=said.page))


@router.post("/leases/release")
def release(said: Page, desk: TheDesk, me: Me) -> Released:
    """The page closes: what it holds goes back, without a trace."""
    return Released(released=desk.release(me, page=said.page))


@router.post("/answers")
def answer(said: Answered, desk: TheDesk, me: Me) -> Outcome:
    """Record an answer, once; `status` says whether it counts."""
    try:
        return desk.answer(me, said)
    except RlhpError as error:
        raise HTTPException(422, str(error)) from None


@router.post("/skips")
def skip(said: Skipped, desk: TheDesk, me: Me) -> SkipOutcome:
    """Leave a query to others: this labeler is not offered it again."""
    return desk.skip(me, said)


@router.post("/undo")
def undo(said: Undone, desk: TheDesk, me: Me) -> UndoOutcome:
    """Take back the newest of this labeler's last ten answers, or the one that is
    named.
    """
    return desk.undo(me, said)


@router.get("/clips/{query}/{side}", response_class=Response)
def clip(query: QueryPath, side: OnScreen, desk: TheDesk, me: Me) -> Response:
    """The video on one side of a query that this labeler holds or held."""
    data = desk.clip(me, query=query, side=side)
    if data is None:
        raise HTTPException(404, "there is no such clip, or it is not yours to see")
    # Not to be kept: whoever logs in next at this browser sees the sides the other way
    # round.
    return Response(
        data, media_type=media_type(data), headers={"Cache-Control": "private, no-store"}
    )
