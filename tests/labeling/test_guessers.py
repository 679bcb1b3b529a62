"""From the first answer to the pause, with real parts: checks are asked, answered,
judged, and acted upon.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhp.labeling.labeler_monitor import LabelerMonitor
from rlhp.preferences import quality
from rlhp.preferences.quality import published
from rlhp.queue.queue import Lease, QueryQueue
from tests.query.actor_parts import STEPS, actor_in, at, config, segments
from tests.reward.trainer_parts import Run

Say = Callable[[Lease], str]


def better(lease: Lease) -> str:
    """What careful labelers say: a segment's id stands in for how good it is."""
    first, second = lease.candidates
    return "first" if first < second else "second"


class Office:
    """A run that people answer, and the parts that ask, fit and judge, stepped by hand."""

    def __init__(self, url: str, folder: Path) -> None:
        labels = {"source": "human", "votes": 2, "budget": 120, "initial_share": 0.5}
        settings = config(labels=labels, clips={"enabled": False})
        self.run = Run(url, folder)
        self.queue: QueryQueue = self.run.queue
        self.actor = actor_in(folder, self.queue, settings)
        self.actor.offer(segments(40))
        self.trainer = self.run.trainer(settings, judge=LabelerMonitor.of(settings, self.queue))
        at(self.actor, STEPS)

    def work(self, labeler: str, say: Say, *, answers: int) -> int:
        """Up to so many answers; how many there were until nothing was lent any more."""
        for count in range(answers):
            self.actor.step()
            self.actor._checks.step(wait_seconds=0)
            leases = self.queue.lease(labeler=labeler, page=f"{labeler}-page", n=1)
            if not leases:
                return count
            (lease,) = leases
            self.queue.answer(
                query=lease.query,
                labeler=labeler,
                page=f"{labeler}-page",
                token=lease.token,
                answer=say(lease),
            )
            self.trainer.drain()
        return answers


def test_who_guesses_is_found_within_thirty_answers_and_lent_nothing_more(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "FAST_SECONDS", 0.0)  # these labelers take no time at all
    office = Office(redis_url, tmp_path)
    for name in ("ann", "bob"):
        assert office.work(name, better, answers=20) == 20
    coin = random.Random(1)
    one_key = office.work("eve", lambda lease: "first", answers=30)
    by_coin = office.work("mallory", lambda lease: coin.choice(["first", "second"]), answers=30)
    found = {each.name: each for each in published(office.queue.info())}
    assert (found["eve"].state, one_key < 30) == ("paused", True)
    assert office.queue.pauses.reason("eve") == found["eve"].reason
    assert found["mallory"].state in ("watch", "paused")
    assert found["mallory"].weight <= 0.5
    assert [found[name].state for name in ("ann", "bob")] == ["ok", "ok"]
    trained = [row for row in office.run.dataset().live() if row.labeler == "mallory"]
    checks = found["mallory"].gold_asked + found["mallory"].repeats_asked
    assert len(trained) == by_coin - checks, "checks never train"
