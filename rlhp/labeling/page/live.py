"""The live view: metrics of the run and the newest video of its policy. What it reads is in the run directory."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response

from rlhp.labeling.page.messages import MetricRows, PolicyClip
from rlhp.labeling.page.routes import Me, TheDesk
from rlhp.labeling.page.video import media_type
from rlhp.metrics import read_metrics
from rlhp.query.labelers import Labeler
from rlhp.rundir import RunDir

MOST_ROWS = 5000
TRUE_RETURN = {
    "env_runners/episode_return_mean",
    "return_correlation",
    "eval/episode_return_mean",
    "eval/episode_return_std",
}
"""Admins alone see these: a labeler who knew the true return would judge by it."""

router = APIRouter(prefix="/api/live", tags=["live"])


@router.get("/metrics")
def metrics(desk: TheDesk, me: Me, since: Annotated[int, Query(ge=0, le=10**9)] = 0) -> MetricRows:
    """Rows of metrics.jsonl from row `since` on, 5,000 at most; none where the server has no run directory."""
    rundir = desk.place.rundir
    rows = read_metrics(rundir.metrics_file) if rundir is not None else []
    fresh = rows[since : since + MOST_ROWS]
    return MetricRows(rows=[_shown(row, me) for row in fresh], next=min(since, len(rows)) + len(fresh))


@router.get("/policy")
def policy(desk: TheDesk, me: Me) -> PolicyClip:
    """The newest video of the policy, and what the reward model says about each of its frames."""
    rundir = desk.place.rundir
    if rundir is None or not (rundir.path / "videos" / "policy.webm").is_file():
        return PolicyClip(video=None, predicted=None)
    return PolicyClip(video="/api/live/policy.webm", predicted=_predicted(rundir))


@router.get("/policy.webm", response_class=Response)
def policy_video(desk: TheDesk, me: Me) -> Response:
    """That video."""
    rundir = desk.place.rundir
    if rundir is not None:
        with suppress(OSError):
            data = (rundir.path / "videos" / "policy.webm").read_bytes()
            return Response(data, media_type=media_type(data))
    raise HTTPException(404, "there is no video of the policy yet")


def _shown(row: dict[str, Any], me: Labeler) -> dict[str, Any]:
    return row if me.admin else {name: value for name, value in row.items() if name not in TRUE_RETURN}


def _predicted(rundir: RunDir) -> list[float] | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((rundir.path / "videos" / "policy.json").read_text(encoding="utf-8"))
        return [float(value) for value in (found["predicted"] if isinstance(found, dict) else found)]
    return None
