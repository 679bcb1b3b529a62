"""What the driver holds of the other roles: stepped in this process, or spoken to as
Ray actors.

The training loop knows the roles, the display and the exact resume by the protocols at
the end of this file, and by nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import ray
from ray.exceptions import ActorDiedError, RayError

from rlhp.errors import RoleBroken, RoleFailed
from rlhp.labeling.clips.renderer import ClipRenderer
from rlhp.labeling.worker import LabelerWorker
from rlhp.monitor.answer_rate import AnswerRate
from rlhp.monitor.rows import RunStatus
from rlhp.query.actor import QueryActor
from rlhp.queue.queue import QueryQueue
from rlhp.queue.records import QueueStats
from rlhp.reward.trainer import RewardTrainer
from rlhp.run.children import TeacherProcesses
from rlhp.system.roles import (
    CLIP_RENDERER,
    QUERY_ACTOR,
    REWARD_MODEL,
    REWARD_TRAINER,
    RoleStatus,
    spoken,
    without_number,
)

log = logging.getLogger(__name__)

QUEUE_EVERY_SECONDS = 1.0
QUEUE_AWAY_SECONDS = 10.0
"""Asking a server that is away takes a second or more, which the learner should not pay
at every turn.
"""
HOUSEKEEPING_SECONDS = 60.0
MODEL_SECONDS = 5.0


class SerialServices:
    """The roles in this process: stepped in turn until none has anything left to do,
    always in the same order.
    """

    def __init__(
        self,
        queue: QueryQueue,
        query_actor: QueryActor,
        reward_trainer: RewardTrainer,
        teacher: LabelerWorker | None,
        clip_renderer: ClipRenderer | None = None,
    ) -> None:
        self._queue, self._query_actor, self._reward_trainer = queue, query_actor, reward_trainer
        self._teacher, self._clip_renderer = teacher, clip_renderer
        self._rate = AnswerRate()
        self._housekeeping = Housekeeping(queue)
        self._noticeboard = Noticeboard(queue)
        self._env_steps = 0
        self._learning = False
        self._warned = False

    def progress(self, *, env_steps: int, learning: bool, **facts: Any) -> None:
        """Tell the query actor and the reward trainer how far the run is."""
        self._env_steps, self._learning = env_steps, learning
        self._query_actor.progress(env_steps=env_steps, learning=learning, **facts)

    def settle(self, nodes: Iterable[str]) -> None:
        """There is one process."""

    def turn(self) -> None:
        """Ask, draw, answer, fit."""
        while self._ask_and_answer():
            pass
        while self._clip_renderer is not None and self._clip_renderer.step():
            pass
        while self._reward_trainer.step(self._env_steps):
            pass
        self._housekeeping.turn()
        self._noticeboard.turn(self.status, env_steps=self._env_steps, learning=self._learning)

    def _ask_and_answer(self) -> bool:
        """One round; whether another may bring more. After one of skips alone it is the
        next turn's to ask again.
        """
        asked = self._query_actor.step()
        if self._teacher is None:
            return asked > 0
        counts = self._teacher.counts
        answers, settled = counts.answers, -1
        while settled != counts.settled:
            settled = counts.settled
            self._teacher.step()
        if asked and counts.answers == answers and not self._warned:
            self._warned = True
            log.warning(
                "the teacher skipped all %d queries of a round; others are asked instead", asked
            )
        return counts.answers > answers

    def status(self) -> RunStatus:
        """What every role says now."""
        trainer = self._reward_trainer.status()
        return RunStatus(
            query_actor=self._query_actor.status(),
            reward_trainer=trainer,
            clip_renderer=None if self._clip_renderer is None else self._clip_renderer.status(),
            queue=self._queue.stats(),
            labels_per_minute=self._rate(trainer.answered),
        )


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
        clip_renderer: Any = None,
        *,
        stall_seconds: float = 300.0,
    ) -> None:
        """One that has said nothing for `stall_seconds` is killed, which makes Ray
        start it again.
        """
        self._queue = queue
        self._actors = {QUERY_ACTOR: query_actor, REWARD_TRAINER: reward_trainer}
        self._models = models
        if clip_renderer is not None:
            self._actors[CLIP_RENDERER] = clip_renderer
        self._labelers = labelers
        self._known: dict[str, Any] = {}  # name -> the status that is of its role
        self._pending: dict[str, Any] = {}
        self._asked_at: dict[str, float] = {}
        self._stall_seconds = stall_seconds
        self._stats: QueueStats | None = None
        self._queue_problem: str | None = None
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
            self._actors[QUERY_ACTOR].progress.remote(
                env_steps=env_steps, learning=learning, **facts
            )
            self._actors[REWARD_TRAINER].progress.remote(env_steps)

    def settle(self, nodes: Iterable[str]) -> None:
        """Env runners are on these nodes: reward models go where they are."""
        self._models.settle(nodes)

    def turn(self) -> None:
        """Ask everybody how they are; raise when one failed for good."""
        if self._labelers is not None:
            self._labelers.keep()
        for name, actor in (self._actors | self._models.actors).items():
            self._poll(name, actor)
            status: RoleStatus | None = self._known.get(name)
            if status is not None and status.fatal is not None:
                raise (RoleBroken if status.ours else RoleFailed)(status.fatal)
        if time.monotonic() >= self._ask_queue_at:
            pause = QUEUE_AWAY_SECONDS
            try:
                self._stats, self._queue_problem = self._queue.stats(), None
                self._housekeeping.turn()
                self._noticeboard.turn(
                    self.status, env_steps=self._env_steps, learning=self._learning
                )
                pause = QUEUE_EVERY_SECONDS
            except ConnectionError as error:  # the query actor says so in the log
                self._queue_problem = str(error)
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
                if without_number(name) == REWARD_MODEL:
                    method = method.options(concurrency_group="control")
                self._pending[name] = method.remote()
                self._asked_at[name] = time.monotonic()
                return
            if ray.wait([pending], timeout=0)[0]:
                del self._pending[name]
                self._known[name] = ray.get(pending)
                if name in self._away:
                    self._away.discard(name)
                    log.warning("%s is back", spoken(name))
            # stopped, or cut off
            elif time.monotonic() - self._asked_at[name] > self._stall_seconds:
                log.warning(
                    "%s has said nothing for %.0f s and is killed",
                    spoken(name),
                    self._stall_seconds,
                )
                del self._pending[name]
                ray.kill(actor, no_restart=False)
        except ActorDiedError as error:  # not restarted: it failed while it was being built
            reason = str(error).strip().splitlines()[-1]
            raise RoleFailed(f"{spoken(name)} cannot be restarted: {reason}") from error
        except RayError as error:
            self._pending.pop(name, None)
            if name not in self._away:
                self._away.add(name)
                log.warning(
                    "%s is away (%s) and is being restarted", spoken(name), type(error).__name__
                )

    def status(self) -> RunStatus:
        """What every role said last."""
        said = {
            name: replace(status, alive=name not in self._away)
            for name, status in self._known.items()
        }
        trainer = said.get(REWARD_TRAINER)
        return RunStatus(
            query_actor=said.get(QUERY_ACTOR),
            reward_trainer=trainer,
            clip_renderer=said.get(CLIP_RENDERER),
            reward_models={name: said[name] for name in self._models.actors if name in said},
            queue=self._stats,
            queue_problem=self._queue_problem,
            labels_per_minute=self._rate(0 if trainer is None else trainer.answered),
        )

    def pids(self) -> dict[str, Any]:
        """Process ids by role."""
        pids = {name: status.pid for name, status in self._known.items()}
        return {**pids, "labelers": self._labelers.pids() if self._labelers else []}


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

    def turn(self, status: Callable[[], RunStatus], *, env_steps: int, learning: bool) -> None:
        """Write what changed, if a second has gone by; raises QueueUnavailable like any
        call to the queue.
        """
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + QUEUE_EVERY_SECONDS
        roles = status()
        facts = {"env_steps": str(env_steps), "phase": "learning" if learning else "warm-up"}
        if roles.query_actor is not None:
            facts |= {
                "segments": str(roles.query_actor.pool),
                "segments_wanted": str(roles.query_actor.warmup_target),
                "allowed": str(roles.query_actor.allowed),
            }
        if roles.reward_trainer is not None:
            facts["reward_version"] = str(roles.reward_trainer.version)
        self._queue.set_info(
            {name: value for name, value in facts.items() if self._written.get(name) != value}
        )
        self._written = facts


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

    def status(self) -> RunStatus:
        """What all of them said last. Never blocks."""


class Exact(Protocol):
    """What a serial run needs to go on bit for bit, as `rlhp.run.resume` has it."""

    def save(self, *, loop: dict[str, Any]) -> dict[str, Any] | None: ...

    def restore(self) -> dict[str, Any] | None: ...


class Display(Protocol):
    """Where a person watches."""

    def update(self, row: dict[str, Any]) -> None: ...

    def message(self, text: str) -> None: ...
