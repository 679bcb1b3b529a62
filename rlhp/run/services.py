"""What the driver holds of the other roles: stepped in this process, or spoken to as
Ray actors.

The training loop knows them, the display and the exact resume by the protocols below
alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import ray
from ray.exceptions import ActorDiedError, RayError

from rlhp.errors import RoleBroken, RoleFailed
from rlhp.labeling.clips.renderer import ClipRenderer
from rlhp.labeling.worker import LabelerWorker
from rlhp.monitor.actors import note
from rlhp.monitor.rows import memory_numbers
from rlhp.query.actor import QueryActor
from rlhp.queue.queue import QueryQueue
from rlhp.reward.trainer import RewardTrainer
from rlhp.run.children import TeacherProcesses

log = logging.getLogger(__name__)

QUEUE_EVERY_SECONDS = 1.0
QUEUE_AWAY_SECONDS = 10.0
"""Asking a server that is away takes a second or more, which the learner should not pay
at every turn.
"""
PER_MINUTE_OVER_SECONDS = 60.0
HOUSEKEEPING_SECONDS = 60.0
MODEL_SECONDS = 5.0
NOTICES = {
    "segments": "segments/pool",
    "segments_wanted": "segments/warmup_target",
    "allowed": "labels/allowed",
    "reward_version": "reward/version",
}
"""Facts of the queue -> the metrics that they are."""


class SerialServices:
    """The roles stepped in turn until none has anything left to do; the order never
    varies.
    """

    def __init__(
        self,
        queue: QueryQueue,
        asking: QueryActor,
        fitting: RewardTrainer,
        worker: LabelerWorker | None,
        clips: ClipRenderer | None = None,
    ) -> None:
        self._queue, self._asking, self._fitting, self._worker, self._clips = (
            queue,
            asking,
            fitting,
            worker,
            clips,
        )
        self._rate = AnswerRate()
        self._housekeeping = Housekeeping(queue)
        self._noticeboard = Noticeboard(queue)
        self._env_steps = 0
        self._learning = False
        self._warned = False

    def progress(self, *, env_steps: int, learning: bool, **facts: Any) -> None:
        """As `QueryActor.progress`."""
        self._env_steps, self._learning = env_steps, learning
        self._asking.progress(env_steps=env_steps, learning=learning, **facts)

    def settle(self, nodes: Iterable[str]) -> None:
        """There is one process."""

    def turn(self) -> None:
        """Ask, draw, answer, fit."""
        while self._ask_and_answer():
            pass
        while self._clips is not None and self._clips.step():
            pass
        while self._fitting.step(self._env_steps):
            pass
        self._housekeeping.turn()
        self._noticeboard.turn(self.status, env_steps=self._env_steps, learning=self._learning)

    def _ask_and_answer(self) -> bool:
        """One round; whether another may bring more. After one of skips alone it is the
        next turn's to ask again.
        """
        asked = self._asking.step()
        if self._worker is None:
            return asked > 0
        counts = self._worker.counts
        answers, settled = counts.answers, -1
        while settled != counts.settled:
            settled = counts.settled
            self._worker.step()
        if asked and counts.answers == answers and not self._warned:
            self._warned = True
            log.warning(
                "the teacher skipped all %d queries of a round; others are asked instead", asked
            )
        return counts.answers > answers

    def status(self) -> dict[str, Any]:
        """Numbers of every role, by metric name."""
        clips = {} if self._clips is None else self._clips.status()
        numbers = {
            **self._asking.status(),
            **self._fitting.status(),
            **clips,
            **queue_numbers(self._queue),
        }
        return {**numbers, "labels/per_minute": self._rate(numbers["labels/answered"])}


class Models(Protocol):
    """The reward models, as `RewardModels` has them."""

    @property
    def actors(self) -> dict[str, Any]: ...

    def settle(self, nodes: Iterable[str]) -> None: ...


class ClusterServices:
    """The roles as Ray actors. Nothing here blocks: a question is answered by the last
    known answer.
    """

    def __init__(
        self,
        queue: QueryQueue,
        query_actor: Any,
        reward_trainer: Any,
        models: Models,
        labelers: TeacherProcesses | None,
        clips: Any = None,
        *,
        stall_seconds: float = 300.0,
    ) -> None:
        """One that has said nothing for `stall_seconds` is killed, which makes Ray
        start it again.
        """
        self._queue = queue
        self._actors = {"query actor": query_actor, "reward trainer": reward_trainer}
        self._models = models
        if clips is not None:
            self._actors["clip renderer"] = clips
        self._labelers = labelers
        self._known: dict[str, dict[str, Any]] = {}
        self._pending: dict[str, Any] = {}
        self._asked_at: dict[str, float] = {}
        self._stall_seconds = stall_seconds
        self._numbers: dict[str, Any] = {}
        self._ask_queue_at = 0.0
        self._housekeeping = Housekeeping(queue)
        self._noticeboard = Noticeboard(queue)
        self._env_steps = 0
        self._learning = False
        self._rate = AnswerRate()
        self._away: set[str] = set()

    def progress(self, *, env_steps: int, learning: bool, **facts: Any) -> None:
        """Tell the query actor and the reward trainer how far the run is."""
        self._env_steps, self._learning = env_steps, learning
        with suppress(RayError):  # restarting: the next call tells it
            self._actors["query actor"].progress.remote(
                env_steps=env_steps, learning=learning, **facts
            )
            self._actors["reward trainer"].progress.remote(env_steps)

    def settle(self, nodes: Iterable[str]) -> None:
        """Env runners are on these nodes: reward models go where they are."""
        self._models.settle(nodes)

    def turn(self) -> None:
        """Ask everybody how they are; raise when one failed for good."""
        if self._labelers is not None:
            self._labelers.keep()
        for name, actor in (self._actors | self._models.actors).items():
            self._poll(name, actor)
            known = self._known.get(name, {})
            if known.get("fatal"):
                raise (RoleBroken if known.get("ours") else RoleFailed)(str(known["fatal"]))
        if time.monotonic() >= self._ask_queue_at:
            pause = QUEUE_AWAY_SECONDS
            with suppress(ConnectionError):  # the query actor says so in the log
                self._numbers = queue_numbers(self._queue)
                self._housekeeping.turn()
                self._noticeboard.turn(
                    self.status, env_steps=self._env_steps, learning=self._learning
                )
                pause = QUEUE_EVERY_SECONDS
            self._ask_queue_at = time.monotonic() + pause

    def waits_for(self) -> str | None:
        """What env runners rightly wait for: None where a reward model answers. Takes
        seconds, from any thread.
        """
        replicas = list(self._models.actors.values())
        pending = [
            replica.status.options(concurrency_group="control").remote() for replica in replicas
        ]
        deadline = time.monotonic() + MODEL_SECONDS
        while pending:
            done, pending = ray.wait(pending, timeout=max(0.0, deadline - time.monotonic()))
            if not done:
                break
            with suppress(RayError):
                ray.get(done[0])
                return None
        return f"none of {len(replicas)} reward models answers"

    def _poll(self, name: str, actor: Any) -> None:
        pending = self._pending.get(name)
        try:
            if pending is None:
                method = actor.status
                if name.startswith("reward model"):
                    method = method.options(concurrency_group="control")
                self._pending[name] = method.remote()
                self._asked_at[name] = time.monotonic()
                return
            if ray.wait([pending], timeout=0)[0]:
                del self._pending[name]
                self._known[name] = ray.get(pending)
                if name in self._away:
                    self._away.discard(name)
                    log.warning("%s is back", name)
            # stopped, or cut off
            elif time.monotonic() - self._asked_at[name] > self._stall_seconds:
                log.warning(
                    "%s has said nothing for %.0f s and is killed", name, self._stall_seconds
                )
                del self._pending[name]
                ray.kill(actor, no_restart=False)
        except ActorDiedError as error:  # not restarted: it failed while it was being built
            reason = str(error).strip().splitlines()[-1]
            raise RoleFailed(f"{name} cannot be restarted: {reason}") from error
        except RayError as error:
            self._pending.pop(name, None)
            if name not in self._away:
                self._away.add(name)
                log.warning("%s is away (%s) and is being restarted", name, type(error).__name__)

    def status(self) -> dict[str, Any]:
        """The last known numbers of every role, by metric name."""
        roles = ("clip renderer", "query actor", "reward trainer")
        numbers = {
            name: value for role in roles for name, value in self._known.get(role, {}).items()
        } | self._numbers
        for name in ("pid", "memory_mb"):
            numbers.pop(name, None)
        return {
            **numbers,
            **memory_numbers(self._known),
            "labels/per_minute": self._rate(numbers.get("labels/answered", 0)),
        }

    def pids(self) -> dict[str, Any]:
        """Process ids by role."""
        known = {name: status["pid"] for name, status in self._known.items() if "pid" in status}
        return {**known, "labelers": self._labelers.pids() if self._labelers else []}

    def notes(self) -> dict[str, str]:
        """What every role was at when it last said something."""
        return {name: note(status) for name, status in self._known.items()}


class Housekeeping:
    """Once a minute: absent labelers' queries and lapsed reservations go, the
    acknowledged log is cut.
    """

    def __init__(self, queue: QueryQueue) -> None:
        self._queue = queue
        self._due = time.monotonic() + HOUSEKEEPING_SECONDS

    def turn(self) -> None:
        """Keep house if a minute has gone by; raises QueueUnavailable like any call to
        the queue.
        """
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + HOUSEKEEPING_SECONDS
            self._queue.sweep()
            self._queue.trim()


class Noticeboard:
    """About once a second the queue is told how far the run is, for whoever labels: why
    nothing is asked just now.
    """

    def __init__(self, queue: QueryQueue) -> None:
        self._queue = queue
        self._due = 0.0
        self._written: dict[str, str] = {}

    def turn(self, status: Callable[[], dict[str, Any]], *, env_steps: int, learning: bool) -> None:
        """Write what changed, if a second has gone by; raises QueueUnavailable like any
        call to the queue.
        """
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + QUEUE_EVERY_SECONDS
        known = status()
        numbers = {
            "env_steps": env_steps,
            **{name: known.get(metric) for name, metric in NOTICES.items()},
        }
        facts = {name: str(int(number)) for name, number in numbers.items() if number is not None}
        facts["phase"] = "learning" if learning else "warm-up"
        self._queue.set_info(
            {name: value for name, value in facts.items() if self._written.get(name) != value}
        )
        self._written = facts


class AnswerRate:
    """Answers per minute over the last minute."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def __call__(self, answered: int) -> float:
        now = time.monotonic()
        self._seen = [(at, count) for at, count in self._seen if now - at < PER_MINUTE_OVER_SECONDS]
        self._seen.append((now, answered))
        first_at, first = self._seen[0]
        return 60.0 * (answered - first) / (now - first_at) if now - first_at > 1 else 0.0


def queue_numbers(queue: QueryQueue) -> dict[str, Any]:
    """Depth and age of the queue, by metric name."""
    stats = queue.stats()
    return {
        "labels/asked": stats.asked,
        "queue/pending": stats.pending + stats.reserved,
        "queue/leased": stats.leased,
        "queue/oldest_age_seconds": stats.oldest_age_seconds,
        "queue/set_aside": stats.set_aside,
    }


class Services(Protocol):
    """Everything beside the learner: queue, query actor, reward trainer, reward models,
    labelers.
    """

    def progress(
        self,
        *,
        env_steps: int,
        warmup_steps: int,
        learning: bool,
        lowest_return: float,
        episodes: Sequence[tuple[float, int]],
        fresh_accuracy: float | None,
    ) -> None:
        """Tell the others how far the run is, as `QueryActor.progress` has it. Never
        blocks.
        """

    def settle(self, nodes: Iterable[str]) -> None:
        """Env runners are on these nodes of the cluster now."""

    def turn(self) -> None:
        """Whatever the driver owes the others once per iteration; raises when one of
        them failed for good.
        """

    def status(self) -> dict[str, Any]:
        """The last known numbers of all of them. Never blocks."""


class Exact(Protocol):
    """What a serial run needs to go on bit for bit, as `rlhp.run.resume` has it."""

    def save(self, *, loop: dict[str, Any]) -> dict[str, Any] | None: ...

    def restore(self) -> dict[str, Any] | None: ...


class Display(Protocol):
    """Where a person watches."""

    def update(self, row: dict[str, Any]) -> None: ...

    def message(self, text: str) -> None: ...
