"""The live view: metrics of the run and the newest video of its policy. What it reads
is in the run directory.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response

from rlhp.labeling.page.messages import MetricRows, PolicyClip
from rlhp.labeling.page.routes import Me, TheDesk, media_type
from rlhp.queue.accounts import Labeler
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir

MOST_ROWS = 5000
VIDEOS = ("policy.webm", "policy.mp4")
"""What a video element plays: the animated picture of `clips.codec=apng` it does not.
"""
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
    """Rows of metrics.jsonl from row `since` on, 5,000 at most; none where the server
    has no run directory.
    """
    rundir = desk.place.rundir
    rows = read_metrics(rundir.metrics_file) if rundir is not None else []
    fresh = rows[since : since + MOST_ROWS]
    return MetricRows(
        rows=[_shown(row, me) for row in fresh], next=min(since, len(rows)) + len(fresh)
    )


@router.get("/policy")
def policy(desk: TheDesk, me: Me) -> PolicyClip:
    """The newest video of the policy, how old that policy is, and what the reward model
    says about each frame.
    """
    rundir = desk.place.rundir
    video = None if rundir is None else _video(rundir)
    if video is None:
        return PolicyClip()
    return _about(video.with_suffix(".json")).model_copy(update={"video": "/api/live/policy/video"})


@router.get("/policy/video", response_class=Response)
def policy_video(desk: TheDesk, me: Me) -> Response:
    """That video."""
    video = None if desk.place.rundir is None else _video(desk.place.rundir)
    if video is not None:
        with suppress(OSError):
            data = video.read_bytes()
            return Response(data, media_type=media_type(data))
    raise HTTPException(404, "there is no video of the policy yet")


def _video(rundir: RunDir) -> Path | None:
    """The newest one: a run that was resumed with another `clips.codec` has several."""
    videos = [path for path in (rundir.videos / name for name in VIDEOS) if path.is_file()]
    return max(videos, key=lambda path: path.stat().st_mtime, default=None)


def _about(file: Path) -> PolicyClip:
    """What was written beside a video; nothing where that cannot be read."""
    with suppress(OSError, ValueError, AttributeError):
        found = json.loads(file.read_text(encoding="utf-8"))
        return PolicyClip.model_validate(
            {name: found.get(name) for name in ("predicted", "env_steps", "reward_version")}
        )
    return PolicyClip()


def _shown(row: dict[str, Any], me: Labeler) -> dict[str, Any]:
    return (
        row if me.admin else {name: value for name, value in row.items() if name not in TRUE_RETURN}
    )
