"""How far a run is, and why there is nothing to answer: from the queue's counts and
what the driver writes there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping

from rlhp.labeling.page.messages import Progress, Waiting
from rlhp.queue.records import QueueStats

OVER_SECONDS = 60.0
"""The rate of answers is that of the last minute."""


def waiting_for(stats: QueueStats, facts: Mapping[str, str]) -> Waiting | None:
    """The first reason that holds; None while a query is pending, which somebody may
    lease.
    """
    if stats.state == "missing":
        return Waiting(reason="missing", detail="the run is not at this Redis yet")
    if stats.state == "closed":
        return Waiting(reason="closed", detail="the run is over; thank you")
    if facts.get("source") == "oracle":
        return Waiting(
            reason="teachers", detail="teachers answer this run: it draws no clips for people"
        )
    if stats.pending:
        return None
    if stats.reserved:
        return Waiting(
            reason="clips", detail=f"clips of {_queries(stats.reserved)} are being drawn"
        )
    if stats.leased:
        return Waiting(
            reason="others", detail=f"{_queries(stats.leased)} open, all in the hands of labelers"
        )
    return _nothing_open(stats, facts)


def nothing_for_you(
    stats: QueueStats, facts: Mapping[str, str], *, paused: str | None = None
) -> Waiting:
    """The reason why a lease brought nothing, where queries may be pending all the
    same.
    """
    if paused is not None:
        return Waiting(reason="paused", detail=f"you are paused: {paused}")
    reason = waiting_for(stats, facts)
    if reason is not None:
        return reason
    return Waiting(
        reason="others",
        detail=f"{_queries(stats.pending)} open, which you answered or skipped: others are asked",
    )


def _nothing_open(stats: QueueStats, facts: Mapping[str, str]) -> Waiting:
    budget = number(facts, "budget")
    if budget is not None and stats.asked >= budget:
        return Waiting(
            reason="spent", detail=f"all {budget} questions of the run are answered; thank you"
        )
    if stats.state == "draining":
        return Waiting(reason="draining", detail="the run is ending: nothing new is asked")
    if "phase" not in facts and not stats.admitted:
        return Waiting(reason="starting", detail="its processes are being started")
    allowed = number(facts, "allowed")
    if facts.get("phase") != "learning":
        pool, target = number(facts, "segments"), number(facts, "segments_wanted")
        if pool is not None and target is not None and pool < target:
            return Waiting(reason="collecting", detail=f"collecting segments: {pool}/{target}")
        if allowed is not None and stats.asked >= allowed > 0:
            return Waiting(
                reason="answered", detail="the first answers are in: the reward is fitted"
            )
    elif allowed is not None and stats.asked >= allowed:
        return Waiting(
            reason="answered",
            detail=(
                f"all {allowed} questions so far are answered; more come while the policy learns"
            ),
        )
    return Waiting(reason="empty", detail="the next questions are being chosen")


def number(facts: Mapping[str, str], name: str) -> int | None:
    """A fact that is a whole number; None where it is unknown."""
    try:
        return int(facts[name])
    except (KeyError, ValueError):
        return None


def _queries(count: int) -> str:
    return f"{count} quer{'y' if count == 1 else 'ies'}"


class Rate:
    """Answers per minute over the last minute, as far as this server has seen it."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def __call__(self, answered: int) -> float:
        now = time.monotonic()
        with self._lock:
            if not self._seen or now - self._seen[-1][0] >= 0.5:
                self._seen.append((now, answered))
            while now - self._seen[0][0] > OVER_SECONDS and len(self._seen) > 1:
                self._seen.popleft()
            first_at, first = self._seen[0]
        return (
            round(60 * max(0, answered - first) / (now - first_at), 1)
            if now - first_at > 1
            else 0.0
        )


def progress_of(
    stats: QueueStats, facts: Mapping[str, str], *, labeler: str, per_minute: float
) -> Progress:
    """What the page shows below the clips."""
    mine = stats.labelers.get(labeler)
    return Progress(
        answered=stats.answered,
        mine=max(0, mine.answers - mine.undone) if mine is not None else 0,
        budget=number(facts, "budget"),
        open=stats.open,
        pending=stats.pending,
        per_minute=per_minute,
        waiting=waiting_for(stats, facts),
        env_steps=number(facts, "env_steps") or 0,
        reward_version=number(facts, "reward_version") or 0,
    )
