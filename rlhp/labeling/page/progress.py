"""How far a run is, and why there is nothing to answer: what the page makes of the
queue's counts, of what the driver writes there, and of `rlhp.monitor.diagnosis`.
"""

from __future__ import annotations

from collections.abc import Mapping

from rlhp.labeling.page.messages import Progress, Waiting
from rlhp.monitor.diagnosis import Facts, diagnose
from rlhp.queue.records import QueueStats


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
        per_minute=round(per_minute, 1),
        waiting=waiting_for(facts),
        env_steps=facts.env_steps,
        reward_version=facts.reward_version,
    )
