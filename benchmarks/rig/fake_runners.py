"""Env runners without environments: fragments of random numbers in HalfCheetah's
shapes, and all that follows them.

A fake runner has its fragment labeled, cuts segments and offers them through the
program's own parts (`RunnerContext`, `Replicas`, `SegmentCutter`, `RemoteSink`); only
the steps themselves are a pause. Many share a process, a thread each, since most of
their time they wait.

Shapes: N environments, T rows.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.rig.samples import ACTION, OBS, STATE
from rlhp.rollout.context import RunnerContext
from rlhp.rollout.fragment import Fragment, pieces
from rlhp.rollout.segments import Origin, SegmentCutter
from rlhp.types import Array, Segment

EPISODE = 1000
"""Steps; the row after them is the reset."""
JITTER = 0.2
"""Share by which pauses differ, so that runners do not fall in step."""


class Course:
    """What a runner's environments show: all begin at one time, so their episodes end
    at one time too.
    """

    def __init__(self, *, envs: int, rows: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._envs, self._rows, self._at = envs, rows, 0
        drawn = 2 * rows  # each fragment begins somewhere else in it
        self._obs = self._rng.normal(size=(envs, drawn + 1, OBS))
        self._actions = self._rng.uniform(-1, 1, (envs, drawn, ACTION)).astype(np.float32)
        self._reward = self._rng.normal(size=(envs, drawn)).astype(np.float32)
        self._state = self._rng.normal(size=(envs, drawn, STATE))

    def fragment(self) -> Fragment:
        """The next T rows; what the learner alone reads is empty."""
        step = (self._at + np.arange(self._rows)) % (EPISODE + 1)
        self._at += self._rows
        valid = np.tile(step < EPISODE, (self._envs, 1))
        first = int(self._rng.integers(self._rows + 1))
        rows = slice(first, first + self._rows)
        obs, actions = self._obs[:, first : first + self._rows + 1], self._actions[:, rows]
        nothing = np.zeros((self._envs, self._rows, 0), np.float32)
        return Fragment(
            obs=obs,
            policy_obs=obs,
            sampled=actions,
            executed=actions,
            logp=nothing,
            dist_inputs=nothing,
            env_reward=np.where(valid, self._reward[:, rows], np.float32("nan")),
            terminated=np.zeros_like(valid),
            truncated=np.tile(step == EPISODE - 1, (self._envs, 1)),
            valid=valid,
            state=self._state[:, rows],
        )


@dataclass(kw_only=True, slots=True)
class Tally:
    """What runners did since somebody last asked."""

    transitions: int = 0
    offered: int = 0
    dropped: int = 0
    waits: list[float] = field(default_factory=list)
    """Seconds from a fragment's end to its rewards, one per fragment."""

    def __iadd__(self, other: Tally) -> Tally:
        self.transitions += other.transitions
        self.offered += other.offered
        self.dropped += other.dropped
        self.waits += other.waits
        return self


class FakeRunner:
    """One env runner after another fragment, as `ColumnarEnvRunner` is, without
    episodes for a learner.
    """

    def __init__(self, context: RunnerContext, *, worker: int, envs: int, rows: int) -> None:
        self._context, self._worker = context, worker
        self._source, self._sink = context.reward_source(worker), context.segment_sink()
        self._course = Course(envs=envs, rows=rows, seed=worker)
        self._rng = np.random.default_rng([1, worker])
        self._cutter = SegmentCutter(
            context.spaces.obs,
            length=context.segment_length,
            share_env_reward=context.share_env_reward,
            rng=self._rng,
        )
        self._episode = np.zeros(envs, np.int64)
        self._steps = 0

    def turn(self) -> Tally:
        """One fragment: labeled, cut, offered."""
        fragment = self._course.fragment()
        began = time.perf_counter()
        rewards, version = self._source.predict(fragment.obs[:, :-1], fragment.executed)
        waited = time.perf_counter() - began
        self._steps += fragment.steps
        segments = self._cut(fragment, rewards, version)
        limit = self._context.segments_per_fragment
        chosen = np.sort(self._rng.permutation(len(segments))[:limit])
        taken = self._sink.offer([segments[k] for k in chosen]) if segments else 0
        return Tally(
            transitions=fragment.steps, offered=taken, dropped=len(segments) - taken, waits=[waited]
        )

    def _cut(self, fragment: Fragment, rewards: Array, version: int) -> list[Segment]:
        origin = Origin(
            run=self._context.run,
            env_runner=self._worker,
            policy_version=0,
            env_steps=self._steps,
            reward_version=version,
            state_kind="mujoco",
        )
        segments: list[Segment] = []
        for piece in pieces(fragment):
            name = f"fake-{self._worker}-{piece.env}-{self._episode[piece.env]}"
            segments += self._cutter.follow(
                fragment, piece, predicted=rewards, episode=name, origin=origin
            )
            self._episode[piece.env] += piece.done
        return segments


class Host:
    """The fake runners of one process; `ray.remote` makes it an actor, and asks it with
    a thread to spare.
    """

    def __init__(
        self,
        context: RunnerContext,
        *,
        workers: list[int],
        envs: int,
        rows: int,
        think_seconds: float,
    ) -> None:
        """`think_seconds` stand for the steps of a fragment; 0: the next one is there
        as soon as rewards are.
        """
        self._think_seconds = think_seconds
        self._lock, self._over = threading.Lock(), threading.Event()
        self._tally = Tally()
        self._failed: Exception | None = None
        self._idle = set(workers)
        for worker in workers:
            runner = FakeRunner(context, worker=worker, envs=envs, rows=rows)
            threading.Thread(target=self._play, args=(runner, worker), daemon=True).start()

    def begun(self) -> bool:
        """Whether each runner has had a fragment labeled; raises what ended one."""
        if self._failed is not None:
            raise self._failed
        return not self._idle

    def take(self) -> Tally:
        """What was done since the last call; raises what ended a runner."""
        self.begun()
        with self._lock:
            taken, self._tally = self._tally, Tally()
        return taken

    def stop(self) -> None:
        """No further fragment."""
        self._over.set()

    def _play(self, runner: FakeRunner, worker: int) -> None:
        dice = random.Random(worker)
        self._over.wait(dice.uniform(0, self._think_seconds))
        while not self._over.is_set():
            try:
                done = runner.turn()
            except Exception as error:  # of a thread, which nobody would hear of
                self._failed = error
                return
            with self._lock:
                self._tally += done
                self._idle.discard(worker)
            self._over.wait(self._think_seconds * dice.uniform(1 - JITTER, 1 + JITTER))


def total(tallies: list[Tally]) -> dict[str, Any]:
    """The figures of several hosts together: counts, and the milliseconds that half and
    99 % of the fragments waited at most.
    """
    sums = Tally()
    for tally in tallies:
        sums += tally
    p50, p99 = np.percentile(sums.waits, [50, 99]) if sums.waits else (np.nan, np.nan)
    return {
        "fragments": len(sums.waits), "transitions": sums.transitions, "offered": sums.offered,
        "dropped": sums.dropped, "label_ms_p50": 1e3 * float(p50), "label_ms_p99": 1e3 * float(p99),
    }  # fmt: skip
