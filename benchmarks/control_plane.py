"""What serves the env runners of a large cluster, under the load of up to 256 of them:
real parts, fake runners.

    python -m benchmarks.control_plane  # every point, 20 s each: a quarter of an hour, alone
    python -m benchmarks.control_plane --runners 64 --repeats 3
    python -m benchmarks.control_plane --quick  # two short points, printed and not stored

Reward models, query actor, Redis and teacher processes are those of `rlhp train`; the
fake runners (`benchmarks.rig.fake_runners`) have fragments of configs/halfcheetah.yaml
labeled and offer their segments. A point is a process of its own, with a Ray of its
own.

    paced         a fragment follows the last one's rewards after the time that a real runner
                  takes for its steps
    unthrottled   it follows at once: where does it saturate?
    questions     paced, and teachers answer at once instead of at the pace of some forty people

The reward trainer is left out, and with it new reward versions; answers are read and
acknowledged in its place. All processes share this machine, so their CPU seconds say
what each would do with a core of its own, and wall-clock figures what this machine
does. True runners of one PPO batch end together; these do not.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from benchmarks.report import control_plane_tables, rows
from benchmarks.rig import alone
from benchmarks.rig.fake_runners import Host, total
from benchmarks.rig.samples import ACTION, OBS, SPACES
from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.envs.make import EnvFacts
from rlhp.learn.ppo.rllib import ppo_keys
from rlhp.queue.queue import QueryQueue
from rlhp.reward.fit import Fitter
from rlhp.reward.versions import RewardStore
from rlhp.rollout.context import RunnerContext
from rlhp.run.children import TeacherProcesses
from rlhp.run.preflight import make_dataset, opened_queue
from rlhp.storage.rundir import RunDir
from rlhp.system.memory import resident_mb
from rlhp.system.ray import NAMESPACE, ray_cluster
from rlhp.system.roles import (
    QUERY_ACTOR,
    QueryActorStatus,
    RewardModelStatus,
    RoleStatus,
    actor_name,
)
from rlhp.workers.placement import RewardModels
from rlhp.workers.roles import DRAIN_EVERY_SECONDS, QueryActorProcess

SECONDS, QUICK_SECONDS = 20.0, 3.0
SETTLE_SECONDS, QUICK_SETTLE_SECONDS = 6.0, 1.0
"""Uncounted, once everybody is at work: the query actor fills the queue,
`query.max_open` at 160 a second.
"""
START_SECONDS = 240.0
THINK_SECONDS = 0.16
"""A runner's 1024 steps of HalfCheetah with the policy's forward passes: sampling of
the control arm in the rows of `benchmarks.cost`, two runners on two cores.
"""
HOSTS = 4
LABELERS, LATENCY_SECONDS = 4, 0.35
"""Each answers as fast as ten people who take 3.5 s."""
NEVER_SPENT = 10_000_000
FACTS = EnvFacts(
    env_id="HalfCheetah-v5",
    spaces=SPACES,
    episode_limit=1000,
    limit_stated=True,
    known_task=True,
    variable_length_possible=False,
    state_kind="mujoco",
    native_vector=False,
    fps=20,
    reward_threshold=None,
)
"""As `probe` finds them; no environment is made here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One load."""

    runners: int
    replicas: int
    mode: str

    @property
    def think_seconds(self) -> float:
        """Pause of a runner before the next fragment."""
        return 0.0 if self.mode == "unthrottled" else THINK_SECONDS


RUNNERS = (1, 4, 16, 64, 256)
POINTS = (
    *(
        Point(runners=runners, replicas=1, mode=mode)
        for runners in RUNNERS
        for mode in ("paced", "unthrottled")
    ),
    *(Point(runners=runners, replicas=1, mode="questions") for runners in (1, 64)),
    *(
        Point(runners=runners, replicas=2, mode=mode)
        for runners in (64, 256)
        for mode in ("paced", "unthrottled")
    ),
)
QUICK = tuple(point for point in POINTS if point.runners == 4)


def config_of(point: Point, *, runs_dir: str) -> RunConfig:
    """HalfCheetah as shipped, with these replicas, and a budget that never stops the
    asking.
    """
    latency = 0.0 if point.mode == "questions" else LATENCY_SECONDS
    sets = [
        "name=control-plane", f"runs_dir={runs_dir}", f"reward.replicas={point.replicas}",
        f"labels.budget={NEVER_SPENT}", "labels.schedule=offline",
        f"labels.labelers={LABELERS}", f"labels.teacher.latency_seconds={latency}",
    ]  # fmt: skip
    return loading.load(alone.ROOT / "configs" / "halfcheetah.yaml", sets=sets)


class Plane:
    """Everything that serves env runners, at work: a context."""

    def __init__(self, point: Point, *, scratch: Path) -> None:
        self._point = point
        self._config = config_of(point, runs_dir=str(scratch))
        self._stack = ExitStack()
        self._hosts: list[Any] = []
        self._ticks = 0

    def __enter__(self) -> Plane:
        with ExitStack() as stack:
            self._rundir = RunDir.create(self._config, "control-plane")
            self.queue: QueryQueue = stack.enter_context(
                opened_queue(self._config, self._rundir, FACTS, resume=False)
            )
            make_dataset(self._config, self._rundir, FACTS)
            _publish(self._config, self._rundir)
            stack.enter_context(ray_cluster(self._config, cpus=1))
            models = RewardModels(self._config, self._rundir, SPACES)
            stack.callback(models.stop)
            self._models = list(models.actors.values())
            actor = ray.remote(num_cpus=0, max_restarts=-1, namespace=NAMESPACE)(QueryActorProcess)
            name = actor_name(self._rundir.name, QUERY_ACTOR)
            self._query_actor = actor.options(name=name).remote(str(self._rundir.path))
            stack.callback(lambda: ray.kill(self._query_actor))
            labelers = TeacherProcesses(self._rundir, count=LABELERS)
            stack.callback(labelers.stop)
            self._pids = self._find_pids()
            stack.callback(self._send_home)
            self._start_hosts()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def live(self, seconds: float) -> None:
        """Let it run, with what the driver and the reward trainer would say and ask
        meanwhile.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._tick()
            time.sleep(max(0.0, min(DRAIN_EVERY_SECONDS, deadline - time.monotonic())))

    def wait_until_busy(self) -> None:
        """Every runner had a fragment labeled and a query was answered; TimeoutError
        where that never comes.
        """
        deadline = time.monotonic() + START_SECONDS
        while not (
            all(ray.get([host.begun.remote() for host in self._hosts]))
            and self.queue.stats().answered
        ):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"within {START_SECONDS:g} s not every part was at work: {self._known()}"
                )
            self.live(0.5)

    def take(self) -> dict[str, Any]:
        """Counts since the last call, and what has added up since the start: queries,
        CPU seconds by part.
        """
        found = total(ray.get([host.take.remote() for host in self._hosts]))
        stats = self.queue.stats()
        return {
            **found,
            "at": time.monotonic(),
            "asked_ever": stats.asked,
            "answered_ever": stats.answered,
            "everything_cpu": alone.cpu_seconds(),
            **{
                f"{part}_cpu": sum(map(alone.cpu_seconds_of, pids))
                for part, pids in self._pids.items()
            },
        }

    def memory(self) -> dict[str, float]:
        """Megabytes by part; of several replicas, the largest."""
        return {f"{part}_mb": max(map(resident_mb, pids)) for part, pids in self._pids.items()}

    def _tick(self) -> None:
        self._ticks += 1
        self._query_actor.progress.remote(env_steps=self._ticks, warmup_steps=0, learning=True)
        while events := self.queue.events(consumer="trainer"):
            self.queue.ack([event.stream_id for event in events])
        self.queue.stats()
        if fatal := self._known().fatal:
            raise ChildProcessError(fatal)

    def _known(self) -> QueryActorStatus:
        known: QueryActorStatus = ray.get(self._query_actor.status.remote())
        return known

    def _ask_models(self) -> list[RewardModelStatus]:
        asked = [
            model.status.options(concurrency_group="control").remote() for model in self._models
        ]
        statuses: list[RewardModelStatus] = ray.get(asked)
        return statuses

    def _find_pids(self) -> dict[str, list[int]]:
        return {
            "replica": _pids(self._ask_models()),
            "query_actor": _pids([self._known()]),
            "redis": [int((self._rundir.redis / "server.pid").read_text())],
            "gcs": alone.children_called("gcs_server"),
        }

    def _start_hosts(self) -> None:
        """Runner k in process k modulo HOSTS; numbered from 1, as RLlib numbers its
        own.
        """
        rollout = self._config.rollout
        envs = rollout.num_envs_per_env_runner
        rows_each = ppo_keys(self._config).train_batch_size // rollout.num_env_runners // envs
        context = RunnerContext.of(self._config, SPACES)
        host = ray.remote(num_cpus=0, max_concurrency=2)(Host)
        for place in range(min(HOSTS, self._point.runners)):
            self._hosts.append(
                host.remote(
                    context,
                    workers=list(range(1 + place, 1 + self._point.runners, HOSTS)),
                    envs=envs,
                    rows=rows_each,
                    think_seconds=self._point.think_seconds,
                )
            )

    def _send_home(self) -> None:
        for host in self._hosts:
            ray.kill(host)


def _pids(statuses: Sequence[RoleStatus]) -> list[int]:
    return [status.pid for status in statuses if status.pid is not None]


def measure(point: Point, *, seconds: float, settle_seconds: float) -> dict[str, Any]:
    """One point in this process: its figures."""
    with tempfile.TemporaryDirectory() as scratch, Plane(point, scratch=Path(scratch)) as plane:
        plane.wait_until_busy()
        plane.live(settle_seconds)
        before = plane.take()
        plane.live(seconds)
        after = plane.take()
        memory = plane.memory()
    wall = after["at"] - before["at"]
    names = ("fragments", "transitions", "offered", "dropped")
    counted = {f"{name}_per_second": after[name] / wall for name in names}
    queries = {
        f"{name}_per_second": (after[f"{name}_ever"] - before[f"{name}_ever"]) / wall
        for name in ("asked", "answered")
    }
    parts = [name.removesuffix("_cpu") for name in after if name.endswith("_cpu")]
    cores = {
        f"{part}_cores": (after[f"{part}_cpu"] - before[f"{part}_cpu"]) / wall for part in parts
    }
    return {
        "seconds": wall,
        "think_seconds": point.think_seconds,
        **counted,
        **{name: after[name] for name in ("label_ms_p50", "label_ms_p99")},
        **queries,
        **cores,
        **memory,
        "machine_cores": len(os.sched_getaffinity(0)),
    }


def _publish(config: RunConfig, rundir: RunDir) -> None:
    """Reward version 1, untrained."""
    draws = np.random.default_rng(0)
    fitter = Fitter(config.reward, spaces=SPACES, seed=0)
    fitter.observe(draws.normal(size=(1000, OBS)), draws.uniform(-1, 1, (1000, ACTION)))
    RewardStore(rundir.path / "reward").save(fitter.publish(1), trainer_state=b"")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runners", type=int, choices=RUNNERS, action="append", help="default: all"
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--quick", action="store_true", help="two short points, printed and not stored"
    )
    parser.add_argument("--run", metavar="POINT", help="one point as JSON, in this process")
    given = parser.parse_args()
    if given.run is not None:
        key = json.loads(given.run)
        repeat = key.pop("repeat")
        timing = (QUICK_SECONDS, QUICK_SETTLE_SECONDS) if given.quick else (SECONDS, SETTLE_SECONDS)
        row = {
            **key,
            "repeat": repeat,
            **measure(Point(**key), seconds=timing[0], settle_seconds=timing[1]),
        }
        print(json.dumps(row), flush=True)
        if not given.quick:
            rows.append("control_plane", row)
        return
    points = (
        QUICK if given.quick else [p for p in POINTS if p.runners in (given.runners or RUNNERS)]
    )
    for repeat in range(1 if given.quick else given.repeats):
        for point in points:
            key = {**asdict(point), "repeat": repeat}
            if given.quick or not rows.done("control_plane", key):
                quick = ["--quick"] if given.quick else []
                alone.run("benchmarks.control_plane", "--run", json.dumps(key), *quick)
    if not given.quick:
        print(control_plane_tables.section())


if __name__ == "__main__":
    main()
