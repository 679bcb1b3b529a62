"""The training loop of a run, the same for one process and for a cluster.

    warm-up    collect segments with the untrained policy, wait for reward version 1
    learning   train one turn on predicted rewards, tell the others how far the run is, write a row
    end        evaluate, save, plot

It knows the learner and, through `Services`, the rest of the run; it never sees a
reward.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhp.config.schema import RunConfig
from rlhp.learn.checkpoint import Checkpoints
from rlhp.learn.evaluate import Evaluation, evaluate
from rlhp.learn.interface import Learner, MakeAct, Report
from rlhp.monitor.rows import RunStatus, returns_row, status_row
from rlhp.query.schedule import FEWEST_FRESH
from rlhp.run.services import Display, Exact, Services
from rlhp.run.throttle import LearnerThrottle
from rlhp.run.videos import PolicyVideos
from rlhp.run.watchdog import StallWatchdog
from rlhp.storage.metrics import MetricsWriter
from rlhp.storage.rundir import RunDir
from rlhp.system.roles import Episode, QueryActorStatus

log = logging.getLogger(__name__)

WAIT_SECONDS = 0.1
COUNT_SECONDS = 5.0
"""How long collected segments may take to the query actor before more are collected."""
RECENT_EPISODES = 100


@dataclass
class Progress:
    """Counters of the run; saved in every checkpoint."""

    env_steps: int = 0
    iteration: int = 0
    episodes: int = 0
    wall_seconds: float = 0.0
    learning: bool = False
    warmup_steps: int = 0
    """Env steps before learning began; they count against `learner.total_env_steps`."""
    lowest_return: float = 0.0
    """Lowest true return of a warm-up episode, 0 at most."""

    def counters(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))


@dataclass
class Loop:
    """One run of `learner` with `services`, until its env steps are done or `stop` is
    set.
    """

    config: RunConfig
    rundir: RunDir
    learner: Learner
    services: Services | None
    metrics: MetricsWriter
    display: Display
    stop: threading.Event
    videos: PolicyVideos | None = None
    watch: Callable[[dict[str, Any], RunStatus], None] | None = None
    """Whoever wants every row too, and what the other roles said when it was made."""
    exact: Exact | None = None
    progress: Progress = field(default_factory=Progress)
    watchdog: StallWatchdog = field(default_factory=lambda: StallWatchdog(None))
    pace: LearnerThrottle | None = None

    def __post_init__(self) -> None:
        self._recent: deque[Episode] = deque(maxlen=RECENT_EPISODES)
        self._fresh: list[tuple[float, int]] = []
        self._checkpoints = Checkpoints.of(self.config, self.rundir)
        self._saved_at = self._evaluated_at = self.progress.env_steps
        self._started = time.monotonic() - self.progress.wall_seconds
        self._last_row = (time.monotonic(), self.progress.env_steps)
        self._expected = 0
        # of the newest row that knows one; an evaluation's where there is one
        self._true_return: float | None = None
        self._waits_since: float | None = None
        self._env_failures = 0
        self._collected = time.monotonic()

    def run(self) -> None:
        """Until the end or the stop; always leaves a checkpoint that the run can be
        resumed from.
        """
        total = self.config.learner.total_env_steps
        if self.services is None:
            self.progress.learning = True
        if self.exact is not None and self.progress.env_steps == 0 and not self._checkpoints.all():
            self.save()  # so that a kill at any moment leaves something to go on from bit for bit
        while self.progress.env_steps < total and not self.stop.is_set():
            self.rundir.lease.check()
            row = self._learn() if self.progress.learning else self._warm_up()
            if self.services is not None:
                self.services.turn()
            if row is not None:
                self._write(row)
                self._checkpoint_when_due()
        self.save()
        self._checkpoints.close()

    def _warm_up(self) -> dict[str, Any] | None:
        """Collect until the query actor has enough, then wait: the first version needs
        answers, not steps.
        """
        services = self.services
        assert services is not None
        status = services.status()
        query_actor, trainer = status.query_actor, status.reward_trainer
        if query_actor is None or trainer is None:
            self.stop.wait(WAIT_SECONDS)  # a cluster that has not said anything yet
            return None
        if trainer.version >= 1:
            self.progress.learning = True
            self._tell()
            self.display.message(
                f"reward version 1 after {self.progress.env_steps} env steps: learning starts"
            )
            return None
        missing = query_actor.warmup_target - query_actor.pool
        if missing <= 0 or not self._counted(query_actor):
            return self._wait()
        with self.watchdog.watching(self.learner.abandon):
            report = self.learner.warm_up(self._steps_for(missing))
        self._expected = query_actor.offered + report.offered
        self._collected = time.monotonic()
        self._take_in(report)
        self.progress.warmup_steps = self.progress.env_steps
        self.progress.lowest_return = min(
            [self.progress.lowest_return, *(true for true, _ in self._fresh)]
        )
        self._tell()
        return {**report.metrics, "phase": "warm-up"}

    def _wait(self) -> dict[str, Any] | None:
        """A moment; now and then a row, so that whoever watches sees the answers come
        in.
        """
        self._tell()
        self.stop.wait(WAIT_SECONDS)
        now = time.monotonic()
        if self._waits_since is not None and now - self._waits_since <= 5:
            return None
        self._waits_since = now
        return {"phase": "warm-up"}

    def _counted(self, query_actor: QueryActorStatus) -> bool:
        """Whether the query actor knows what was collected last; after a while without,
        it was lost on its way.
        """
        return (
            query_actor.offered >= self._expected
            or time.monotonic() - self._collected > COUNT_SECONDS
        )

    def _steps_for(self, missing: int) -> int:
        """Env steps for this many segments: whole ones in every environment, at most a
        turn at a time.
        """
        envs = self.learner.num_envs
        windows = -(-missing // envs)
        return min(self.learner.turn_steps, int(windows * envs * self.config.query.segment_length))

    def _learn(self) -> dict[str, Any]:
        done = self.progress
        held = self.pace.wait(done.env_steps, self._tell) if self.pace is not None else {}
        with self.watchdog.watching(self.learner.abandon):
            report = self.learner.train()
        self._take_in(report)
        self.progress.iteration += 1
        self._tell()
        return {**report.metrics, **held, "phase": "learning"}

    def _take_in(self, report: Report) -> None:
        """Count its env steps and episodes, and follow its env runners."""
        if report.env_steps:
            self.watchdog.progressed()
        self.progress.env_steps += report.env_steps
        self._recent.extend(report.episodes)
        self._fresh = [(float(true), int(length)) for true, _, length in report.episodes]
        self.progress.episodes += len(report.episodes)
        if self.services is not None and report.nodes is not None:
            self.services.settle(report.nodes)
        if report.failures > self._env_failures:
            self._env_failures = report.failures
            self.display.message(
                f"{self.config.env.id} failed and was made anew, {report.failures} times so far "
                f"in one env runner at most; {self.rundir.log_file} says why"
            )

    def _tell(self) -> None:
        if self.services is not None:
            progress = self.progress
            self.services.progress(
                env_steps=progress.env_steps,
                warmup_steps=progress.warmup_steps,
                learning=progress.learning,
                lowest_return=progress.lowest_return,
                episodes=self._fresh,
                fresh_accuracy=self._fresh_accuracy(),
            )
            self._fresh = []

    def _fresh_accuracy(self) -> float | None:
        """What the adaptive schedule goes by; None where too few answers were predicted
        yet.
        """
        assert self.services is not None
        trainer = self.services.status().reward_trainer
        if trainer is None or trainer.fresh_answers < FEWEST_FRESH:
            return None
        return trainer.fresh_accuracy

    def _write(self, row: dict[str, Any]) -> None:
        # this process may have stood still for as long as another needs to take over
        self.rundir.lease.check()
        now, progress = time.monotonic(), self.progress
        before, steps_before = self._last_row
        progress.wall_seconds = now - self._started
        status = self.services.status() if self.services else RunStatus()
        row = {
            **status_row(status, env_steps=progress.env_steps),
            **row,
            "env_steps": progress.env_steps,
            "iteration": progress.iteration,
            "episodes": progress.episodes,
            "wall_seconds": progress.wall_seconds,
            "env_steps_per_second": (progress.env_steps - steps_before) / max(1e-9, now - before),
            **returns_row(self._recent),
        }
        every = self.config.evaluation.every_env_steps
        if every is not None and progress.env_steps - self._evaluated_at >= every:
            self._evaluated_at = progress.env_steps
            played = self.evaluate(seed=self.config.seed + progress.iteration)
            row.update(
                {"eval/episode_return_mean": played.mean, "eval/episode_return_std": played.std}
            )
        self._last_row = (now, progress.env_steps)
        recent = row.get("env_runners/episode_return_mean", self._true_return)
        self._true_return = row.get("eval/episode_return_mean", recent)
        if self.watch is not None:
            self.watch(row, status)  # first, since alarms are a part of the row
        self.metrics.write(row)
        self.display.update(row)

    def evaluate(self, *, seed: int) -> Evaluation:
        """The present policy's true return."""
        return evaluate(
            self._act(seed), self.config.env, episodes=self.config.evaluation.episodes, seed=seed
        )

    def record_video(self, *, wait: bool = False) -> Path | None:
        """The newest video after one of the present policy was begun, as `PolicyVideos`
        does it; None where there is none.
        """
        if self.videos is None:
            return None
        return self.videos.record(
            self._act(self.config.seed), env_steps=self.progress.env_steps, wait=wait
        )

    def _act(self, seed: int) -> MakeAct:
        return self.learner.policy(explore=self.config.evaluation.explore, seed=seed)

    def _checkpoint_when_due(self) -> None:
        every = self.config.checkpoint.every_env_steps
        if every is not None and self.progress.env_steps - self._saved_at >= every:
            self.save()
            # people like to see what came of their answers
            if self.config.draws_clips and self.progress.learning:
                self.record_video()

    def save(self) -> None:
        """A checkpoint of this moment."""
        self.rundir.lease.check()
        self._saved_at = self.progress.env_steps
        exact = None
        if self.exact is not None:
            mine = {
                "recent": list(self._recent),
                "evaluated_at": self._evaluated_at,
                "expected": self._expected,
            }
            exact = self.exact.save(loop=mine)
        with self.watchdog.watching(self.learner.abandon):
            self._checkpoints.save(
                self.learner,
                env_steps=self.progress.env_steps,
                counters={**self.progress.counters(), "metrics_bytes": self.metrics.size()},
                true_return=self._true_return,
                exact=exact,
            )

    def saved_steps(self) -> int:
        """Env steps of the newest checkpoint; -1 where there is none."""
        newest = self._checkpoints.newest()
        return -1 if newest is None else int(self._checkpoints.counters(newest)["env_steps"])

    def begin_again(self, learner: Learner) -> None:
        """Go on with another learner from the newest checkpoint, or from the first
        step where there is none.
        """
        self.learner = learner
        self.progress = Progress()
        self._saved_at = self._evaluated_at = 0
        self._waits_since, self._expected, self._true_return = None, 0, None
        self._last_row = (time.monotonic(), 0)
        self.restore()

    def restore(self) -> bool:
        """Go on from the newest checkpoint; False where there is none, and the rows of
        before are cut off.
        """
        newest = self._checkpoints.fetch()
        if newest is None:
            self.metrics.rewind(0, env_steps=0)
            return False
        counters = self._checkpoints.counters(newest)
        self._checkpoints.restore(newest, self.learner)
        for name in self.progress.counters():
            setattr(self.progress, name, counters[name])
        self.metrics.rewind(counters["metrics_bytes"], env_steps=self.progress.env_steps)
        self._saved_at = self._evaluated_at = self.progress.env_steps
        self._true_return = counters["true_return"]
        if self.exact is not None and (mine := self.exact.restore()) is not None:
            self._recent.extend(
                (true, predicted, length) for true, predicted, length in mine["recent"]
            )
            self._evaluated_at, self._expected = mine["evaluated_at"], mine["expected"]
        self._started = time.monotonic() - self.progress.wall_seconds
        self._last_row = (time.monotonic(), self.progress.env_steps)
        self._tell()  # how long the warm-up was, before the first question of the resumed run
        return True
