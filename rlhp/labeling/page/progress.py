"""How far a run is, and why there is nothing to answer: what the page makes of the
queue's counts, of what the driver writes there, and of `rlhp.monitor.diagnosis`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping

from rlhp.labeling.page.messages import Progress, Waiting
from rlhp.monitor.diagnosis import Facts, diagnose
from rlhp.queue.records import QueueStats

OVER_SECONDS = 60.0
"""The rate of answers is that of the last minute."""


def waiting_for(facts: Facts) -> Waiting | None:
    """What the first finding says that is meant for labelers; None while a query is
    pending, which somebody may lease.
    """
    for finding in diagnose(facts):
        if finding.for_labelers:
            return Waiting(reason=finding.kind, detail=finding.what)
    return None


def facts_of(stats: QueueStats, info: Mapping[str, str], *, gone: bool = False) -> Facts:
    """What a page knows: the queue, and what the driver wrote there.

    `gone`: the process of the run is not there any more, as far as this host can tell.
    """
    return Facts(
        gone=gone and stats.state == "open",
        source=info.get("source"),
        budget=number(info, "budget"),
        env_steps=number(info, "env_steps") or 0,
        reward_version=number(info, "reward_version") or 0,
        learning={"learning": True, "warm-up": False}.get(info.get("phase", "")),
        pool=number(info, "segments"),
        pool_target=number(info, "segments_wanted"),
        allowed=number(info, "allowed"),
        answered=stats.answered,
        queue=stats,
    )


def number(info: Mapping[str, str], name: str) -> int | None:
    """A fact that is a whole number; None where it is unknown."""
    try:
        return int(info[name])
    except (KeyError, ValueError):
        return None


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


def progress_of(facts: Facts, *, labeler: str, per_minute: float) -> Progress:
    """What the page shows below the clips."""
    stats = facts.queue
    assert stats is not None
    mine = stats.labelers.get(labeler)
    return Progress(
        answered=stats.answered,
        mine=max(0, mine.answers - mine.undone) if mine is not None else 0,
        budget=facts.budget,
        open=stats.open,
        pending=stats.pending,
        per_minute=per_minute,
        waiting=waiting_for(facts),
        env_steps=facts.env_steps,
        reward_version=facts.reward_version,
    )
