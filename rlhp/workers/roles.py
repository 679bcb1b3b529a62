"""The roles, built from a run directory alone, and the roles as processes, which a
restart thus gives back whole.

A serial run holds what `query_actor`, `reward_trainer` and `clip_renderer` build; a
distributed one has the same within the classes that `rlhp.program` makes Ray actors.
Every constructor argument of those is small; whatever is large (weights, preferences,
segments) is read back from where it was made durable.

Some run at their own pace (`Background`): a thread steps the role, keeps a snapshot of
its status, and does not die silently. A lost connection is waited out with back-off and
one line at loss and return; any other error is fatal to the run and kept for the
driver, which asks for `status` and stops with that line.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError

from rlhp.config.schema import RunConfig
from rlhp.envs.spaces import Spaces
from rlhp.errors import curable, one_line, root
from rlhp.labeling.clips.painter import Painter
from rlhp.labeling.clips.renderer import ClipRenderer
from rlhp.labeling.labeler_monitor import LabelerMonitor
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.query.actor import QueryActor
from rlhp.queue.queue import QueryQueue
from rlhp.reward.client import Replicas, RewardSource, replica_names
from rlhp.reward.service import RewardModel
from rlhp.reward.trainer import Recent, RewardTrainer
from rlhp.reward.versions import RewardStore, RewardWeights
from rlhp.storage.rundir import RunDir
from rlhp.system.logs import start_log
from rlhp.system.memory import keep_freed_memory, resident_mb
from rlhp.system.ray import NAMESPACE
from rlhp.system.roles import (
    CLIP_RENDERER,
    QUERY_ACTOR,
    REWARD_MODEL,
    REWARD_TRAINER,
    QueryActorStatus,
    RewardModelStatus,
    RewardTrainerStatus,
    RoleStatus,
    actor_name,
    numbered,
    spoken,
)
from rlhp.types import Array, Segment

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 5.0


Status = TypeVar("Status", bound=RoleStatus)


class Background(Generic[Status]):
    """Calls `step` of a role until stopped; it says whether there was anything to do."""

    def __init__(
        self,
        step: Callable[[], Any],
        status: Callable[[], Status],
        *,
        name: str,
        pause_seconds: float = 0.0,
    ) -> None:
        """`status` is asked after every step, by the same thread.

        `pause_seconds` lie between two steps, busy or not: what a role does in one
        go costs less than in ten.
        """
        self._pause_seconds = pause_seconds
        self._step = step
        self._ask = status
        self._name = spoken(name)
        self._stop = threading.Event()
        self._news = threading.Event()
        self._status = status()
        self._fatal: str | None = None
        self._ours = False
        self._waiting: str | None = None
        self._beat = time.time()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def status(self) -> Status:
        """What the role said after its last step, and how its thread is."""
        return self.with_thread(self._status)

    def with_thread(self, status: Status) -> Status:
        """The status with how this thread and its process are."""
        return replace(
            status,
            fatal=self._fatal,
            ours=self._ours,
            waiting_for=self._waiting,
            beat=self._beat,
            pid=os.getpid(),
            memory_mb=resident_mb(),
        )

    def wake(self) -> None:
        """There is news for the role: its next step is now, whatever pause it is in."""
        self._news.set()

    def stop(self, timeout_seconds: float = 10.0) -> bool:
        """Ask the thread to end after its present step, and wait for it; whether it
        did.
        """
        self._stop.set()
        self._news.set()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = IDLE_SECONDS
        while not self._stop.is_set():
            try:
                busy = self._step()
                self._status = self._ask()
            except ConnectionError as error:
                if self._waiting is None:
                    log.warning("%s waits: %s", self._name, error)
                self._waiting = str(error)
                pause = min(LONGEST_BACKOFF_SECONDS, pause * 2)
                self._stop.wait(pause)
                continue
            except Exception as error:
                log.exception("%s stopped", self._name)
                first = root(error)
                self._ours = not curable(first)
                self._fatal = f"{self._name}: {one_line(first) if self._ours else first}"
                return
            if self._waiting is not None:
                log.warning("%s goes on", self._name)
            self._waiting, pause, self._beat = None, IDLE_SECONDS, time.time()
            if self._pause_seconds or not busy:
                self._news.wait(max(self._pause_seconds, 0.0 if busy else IDLE_SECONDS))
            self._news.clear()


HEAL_EVERY_SECONDS = 10.0
ASK_EVERY_SECONDS = 0.2
"""Queries become durable in batches too; a person does not notice."""
BACKGROUND_NICENESS = 10
DRAIN_EVERY_SECONDS = 0.2
"""Answers become durable in batches: for each of them a file is synced, and the
training set is laid out anew.
"""


class Parts:
    """What a role reads from a run directory.

    `owner` is the token of the driver that it works for. With `exact` the parts of the
    dataset are never merged, since checkpoints go by their names.
    """

    def __init__(self, path: str | Path, *, owner: str = "", exact: bool = False) -> None:
        self._owner = owner
        self.rundir = RunDir.open(path)
        self.config: RunConfig = self.rundir.config()
        self.dataset = PreferenceDataset.open(self.rundir.preferences, compacting=not exact)
        self.spaces = self.dataset.spaces
        self.store = RewardStore(self.rundir.path / "reward")

    def queue(self) -> QueryQueue:
        """A client of the run's queue; the URL is read from a file, so that no password
        is passed around.
        """
        url = self.rundir.redis_url()
        assert url is not None, "the queue is opened before any role is started"
        return QueryQueue(
            url,
            run=self.rundir.name,
            lease_seconds=self.config.query.lease_seconds,
            connect_timeout_seconds=self.config.redis.connect_timeout_seconds,
            owner=self._owner,
        )


def query_actor(parts: Parts, queue: QueryQueue, *, reward: RewardSource) -> QueryActor:
    """The role that asks, with the reward models' scores."""
    return QueryActor(parts.config, parts.spaces, queue=queue, store=parts.dataset, reward=reward)


def reward_trainer(
    parts: Parts,
    queue: QueryQueue,
    *,
    recent: Recent,
    publish: Callable[[RewardWeights], object],
    drain_every_seconds: float = 0.0,
) -> RewardTrainer:
    """The role that fits, with the query actor's transitions, for the reward models."""
    return RewardTrainer(
        parts.config,
        parts.spaces,
        dataset=parts.dataset,
        answers=queue,
        store=parts.store,
        recent=recent,
        publish=publish,
        reused=parts.dataset.counts()["reused"],
        drain_every_seconds=drain_every_seconds,
        judge=LabelerMonitor.of(parts.config, queue),
    )


def clip_renderer(config: RunConfig, queue: QueryQueue) -> ClipRenderer:
    """The role that draws the queries of this queue."""
    clips = queue.clips.kept_in(config.clips.store)
    return ClipRenderer(queue, clips, Painter(config.env, config.clips), cap_mb=config.clips.cap_mb)


def stand_back() -> None:
    """Give way to env runners and the learner: asking and fitting live on what they
    leave of the machine.
    """
    os.nice(BACKGROUND_NICENESS)


def log_of(rundir: RunDir, who: str) -> None:
    """Send this process's log lines to the run's log, named."""
    start_log(rundir.log_file, run=rundir.name, who=who)


class RewardModelProcess(RewardModel):
    """One replica: comes up with the newest published weights.

    It needs no file of the run, so that nodes with env runners need no disk in common
    with the driver.
    """

    def __init__(self, run: str, index: int, *, spaces: Spaces, device: str, path: str) -> None:
        if Path(path).is_dir():
            log_of(RunDir(path), numbered(REWARD_MODEL, index))
        super().__init__(spaces, newest=lambda: newest_weights(run, path), device=device)

    def status(self) -> RewardModelStatus:
        """What the reward model says, and which process it is."""
        return replace(super().status(), pid=os.getpid(), memory_mb=resident_mb())


def newest_weights(run: str, path: str) -> RewardWeights | None:
    """What was published last, from the run directory or, where that is not, from the
    reward trainer; None: nothing.
    """
    if Path(path).is_dir():
        return RewardStore(Path(path) / "reward").newest()
    try:
        trainer = ray.get_actor(actor_name(run, REWARD_TRAINER), namespace=NAMESPACE)
        data: bytes | None = ray.get(trainer.newest.remote(), timeout=10)
    except (RayError, ValueError, TimeoutError):
        return None
    return None if data is None else RewardWeights.from_bytes(data)


class QueryActorProcess:
    """The query actor on a thread of its own, so that offers are taken while it scores."""

    def __init__(self, path: str, *, owner: str = "") -> None:
        parts = Parts(path, owner=owner)
        log_of(parts.rundir, QUERY_ACTOR)
        stand_back()
        self._path = str(parts.rundir.path)
        reward = Replicas(parts.rundir.name, favorite=0, who=spoken(QUERY_ACTOR))
        self._role = query_actor(parts, parts.queue(), reward=reward)
        self._background = Background(
            self._role.step, self._role.status, name=QUERY_ACTOR, pause_seconds=ASK_EVERY_SECONDS
        )

    def offer(self, segments: list[Segment]) -> int:
        """Add to the candidates of the query actor; returns the number taken."""
        return self._role.offer(segments)

    def progress(self, **facts: Any) -> None:
        """Tell `QueryActor.progress`, and wake the thread that asks, so that what is
        due is asked at once.
        """
        self._role.progress(**facts)
        self._background.wake()

    def recent(self, count: int) -> tuple[Array, Array] | None:
        """At most `count` transitions of the newest segments, for the reward trainer."""
        return self._role.recent(count)

    def status(self) -> QueryActorStatus:
        """The role's newest numbers, and how its thread is."""
        return replace(self._background.with_thread(self._role.status()), run_path=self._path)


class ClipRendererProcess:
    """The clip renderer on a thread of its own. It draws in a child process, which ends
    with this one.
    """

    def __init__(self, path: str, *, owner: str = "") -> None:
        parts = Parts(path, owner=owner)
        log_of(parts.rundir, CLIP_RENDERER)
        stand_back()
        self._role = clip_renderer(parts.config, parts.queue())
        self._background = Background(
            self._role.step, self._role.status, name=CLIP_RENDERER, pause_seconds=0.05
        )

    def status(self) -> RoleStatus:
        """The role's newest numbers, and how its thread is."""
        return self._background.status()


class RewardTrainerProcess:
    """The reward trainer on a thread of its own: fitting never holds up who asks for
    its status.
    """

    def __init__(self, path: str, *, owner: str = "") -> None:
        import torch

        torch.set_num_threads(1)
        keep_freed_memory()
        parts = Parts(path, owner=owner)
        log_of(parts.rundir, REWARD_TRAINER)
        stand_back()
        self._run = parts.rundir.name
        self._store = parts.store
        self._role = reward_trainer(
            parts,
            parts.queue(),
            recent=self._recent,
            publish=self._publish,
            drain_every_seconds=DRAIN_EVERY_SECONDS,
        )
        self._env_steps: int | None = None
        self._healed = time.monotonic()
        self._background = Background(self._turn, self._role.status, name=REWARD_TRAINER)

    def progress(self, env_steps: int) -> None:
        """How far the run is: fitting is paid by env steps."""
        self._env_steps = env_steps
        self._background.wake()

    def status(self) -> RewardTrainerStatus:
        """The role's newest numbers, and how its thread is."""
        return self._background.status()

    def newest(self) -> bytes | None:
        """The newest published weights, for a reward model that has just come up."""
        weights = self._store.newest()
        return None if weights is None else weights.to_bytes()

    def finish(self) -> None:
        """Put the last answers on disk; nothing is fitted any more."""
        if not self._background.stop():
            return  # in the middle of a long fit: they wait in Redis for a resume
        with suppress(ConnectionError):
            while self._role.drain():
                pass

    def _turn(self) -> bool:
        if self._env_steps is None:
            # fitting is paid by env steps, and after a restart only the driver knows
            # how many
            return False
        busy = self._role.step(self._env_steps)
        if time.monotonic() - self._healed > HEAL_EVERY_SECONDS:
            self._healed = time.monotonic()
            self._heal()
        return busy

    def _recent(self, count: int) -> tuple[Array, Array] | None:
        try:
            actor = ray.get_actor(actor_name(self._run, QUERY_ACTOR), namespace=NAMESPACE)
            newest: tuple[Array, Array] | None = ray.get(actor.recent.remote(count), timeout=30)
        except (RayError, ValueError) as error:
            log.warning(
                "no recent transitions from the query actor (%s): the last ones stay",
                type(error).__name__,
            )
            return None
        return newest

    def _publish(self, weights: RewardWeights) -> None:
        reference = ray.put(weights.to_bytes())
        for name in replica_names(self._run):
            self._call(name, "load", reference)

    def _heal(self) -> None:
        """A push that got lost is made again: versions on a replica only grow, so a
        repeated one is harmless.
        """
        newest = self._store.newest()
        for name in replica_names(self._run):
            pending = self._call(name, "status")
            if newest is None or pending is None:
                continue
            try:
                if ray.get(pending, timeout=2).version < newest.version:
                    log.warning("%s lags behind version %d: sent again", name, newest.version)
                    self._call(name, "load", newest.to_bytes())
            except RayError:
                continue  # restarting: it asks for the newest version itself

    def _call(self, name: str, method: str, *args: Any) -> Any:
        try:
            replica = ray.get_actor(name, namespace=NAMESPACE)
            return getattr(replica, method).options(concurrency_group="control").remote(*args)
        except (RayError, ValueError):
            return None
