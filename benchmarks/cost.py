"""What preferences cost: env steps per second and CPU seconds of three arms, beside
each other.

    python -m benchmarks.cost  # three tasks, six repeats of three arms, half an hour, alone
    python -m benchmarks.cost --task pendulum --repeats 8
    python -m benchmarks.cost --quick  # one short repeat of HalfCheetah, printed and not stored

    stock         RLlib's PPO with RLlib's own env runner, on the env reward
    control       our env runner on the env reward (`labels.source=none`)
    preferences   our env runner on predicted rewards, with all that asks, answers and fits

All three have the task's config: the same networks, batches, epochs and environments (2
runners x 8), observations standardized. Each run is a process of its own. It is
measured while it learns, so neither start-up nor warm-up counts. The three runs of a
repeat follow one another, in an order that changes: a ratio is taken within a repeat.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.report import rows, tables
from benchmarks.rig import alone
from benchmarks.rig.stock import stock_ppo
from rlhp import program
from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.storage.metrics import MetricsWriter
from rlhp.storage.rundir import RunDir
from rlhp.system.ray import ray_cluster

TASKS = ("halfcheetah", "pendulum", "cartpole")
ARMS = ("stock", "control", "preferences")
ORDERS = tuple(itertools.permutations(ARMS))
REPEATS = 6
SECONDS, QUICK_SECONDS = 6.0, 2.0
"""How long a run learns under the clock."""
LIMIT_SECONDS = 240.0
"""A run that takes longer as a whole is given up; alone on two cores it takes half a
minute.
"""
UNCOUNTED = 2
"""Learning iterations before the clock starts: the first ones build graphs and fill
pools.
"""
FEWEST = 5
TARGETS = {("preferences", "control"): 0.95, ("preferences", "stock"): 1.0}


class Measured(Exception):
    """Enough was seen: ends a run from within."""


class Clock:
    """Watches one run, from the first iterations of learning until enough seconds have
    passed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._uncounted = UNCOUNTED
        self._ticks: list[tuple[float, int]] = []
        self._cpu = 0.0
        self._over = False
        self._waits: list[float] = []
        self._sampling: list[float] = []

    def tick(
        self, env_steps: int, *, sample_seconds: float | None, label_wait_ms: float | None
    ) -> None:
        """An iteration has ended at this many env steps; raises `Measured` when that
        was the last one needed.
        """
        if self._uncounted:
            self._uncounted -= 1
            return
        if not self._ticks:
            self._cpu = alone.cpu_seconds()
        self._ticks.append((time.monotonic(), env_steps))
        self._waits += [label_wait_ms] if label_wait_ms is not None else []
        self._sampling += [sample_seconds] if sample_seconds is not None else []
        if self._ticks[-1][0] - self._ticks[0][0] >= self._seconds and len(self._ticks) > FEWEST:
            self._cpu = alone.cpu_seconds() - self._cpu
            self._over = True
            raise Measured

    def figures(self) -> dict[str, Any]:
        """The row of this run; ValueError where it was too short to tell."""
        if not self._over:
            raise ValueError(
                f"a measured run learns for {self._seconds:g} s and more than {FEWEST} "
                f"iterations, this one ended after {len(self._ticks)}; measure on a machine that "
                "does nothing else"
            )
        (started, first), (ended, last) = self._ticks[0], self._ticks[-1]
        pairs = itertools.pairwise(self._ticks)
        each = [(steps - before) / (now - earlier) for (earlier, before), (now, steps) in pairs]
        return {
            "iterations": len(each),
            "steps_per_second": statistics.median(each),
            "mean_steps_per_second": (last - first) / (ended - started),
            "cpu_seconds_per_1000_steps": 1000 * self._cpu / (last - first),
            "sample_seconds": statistics.median(self._sampling) if self._sampling else None,
            "label_wait_ms": statistics.median(self._waits) if self._waits else None,
        }


def config_of(task: str, arm: str, *, runs_dir: str = "runs") -> RunConfig:
    """The task's config, with what surrounds learning switched off."""
    sets = [
        f"labels.source={'oracle' if arm == 'preferences' else 'none'}",
        f"runs_dir={runs_dir}",
        f"name=cost-{arm}",
        "rollout.num_env_runners=2",
        "rollout.num_envs_per_env_runner=8",
        "checkpoint.every_env_steps=null",
        "tensorboard=false",
        # before the clock starts, and steps are as long however many there were
        "reward.pretrain_epochs=20",
    ]
    path = alone.ROOT / "configs" / f"{task}.yaml"
    if arm == "control":  # a fast machine is through CartPole before the clock has seen enough
        sets.append(f"learner.total_env_steps={3 * loading.load(path).learner.total_env_steps}")
    return loading.load(path, sets=sets)


def ours(task: str, arm: str, clock: Clock) -> None:
    """`rlhp train` on this task until the clock has seen enough."""

    class Watched(MetricsWriter):
        def write(self, row: Mapping[str, Any]) -> None:
            super().write(row)
            if row["phase"] == "learning":
                sample = row.get("time/sample_seconds")
                clock.tick(
                    row["env_steps"],
                    sample_seconds=sample,
                    label_wait_ms=row.get("reward/predict_wait_ms"),
                )

    with tempfile.TemporaryDirectory() as scratch, patch.object(program, "MetricsWriter", Watched):
        config = config_of(task, arm, runs_dir=scratch)
        program.train(config, rundir=RunDir.create(config, task))


def stock(task: str, clock: Clock) -> None:
    """RLlib's own PPO on this task until the clock has seen enough."""
    config = config_of(task, "stock")
    with ray_cluster(config, cpus=3):
        algorithm = stock_ppo(config)
        while True:
            result = algorithm.train()
            sample = result["timers"]["env_runner_sampling_timer"]
            steps = int(result["env_runners"]["num_env_steps_sampled_lifetime"])
            clock.tick(steps, sample_seconds=float(sample), label_wait_ms=None)


def measure(task: str, arm: str, *, seconds: float) -> dict[str, Any]:
    """Run one arm in this process: its figures."""
    clock = Clock(seconds)
    threading.Thread(target=_give_up, daemon=True).start()
    with suppress(Measured):
        stock(task, clock) if arm == "stock" else ours(task, arm, clock)
    return clock.figures()


def _give_up() -> None:
    time.sleep(LIMIT_SECONDS)
    os.kill(os.getpid(), signal.SIGINT)


def ratios(
    found: list[dict[str, Any]], task: str, arms: tuple[str, str], *, of: str
) -> list[float]:
    """Of one arm over the other, repeat by repeat."""
    by = {(row["arm"], row["repeat"]): float(row[of]) for row in found if row["task"] == task}
    repeats = sorted({repeat for _, repeat in by})
    return [
        by[arms[0], n] / by[arms[1], n]
        for n in repeats
        if {(arms[0], n), (arms[1], n)} <= by.keys()
    ]


def interval_of_median(values: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    draws = np.random.default_rng(0).choice(np.array(values), size=(10_000, len(values)))
    return float(np.percentile(np.median(draws, 1), 2.5)), float(
        np.percentile(np.median(draws, 1), 97.5)
    )


def section() -> str:
    """Markdown for the page: every arm, then the ratios with their targets."""
    found = rows.read("cost")
    arms: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        arms[row["task"], row["arm"]].append(row)
    lines = [
        "## Cost of preferences",
        "",
        "    python -m benchmarks.cost",
        "",
        "Env steps per second while learning (sampling, labeling, learning): the median over the "
        "iterations of a run, then over runs. 2 env runners x 8 environments; `stock` is RLlib's "
        "PPO with its own env runner, the same networks, batches and epochs. CPU seconds are "
        "those of the whole process tree in the same time.",
        "",
        "| task | arm | runs | env steps/s, median (lowest to highest) | mean over the whole time |"
        " CPU s per 1,000 env steps | sampling | wait for predicted rewards |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        _line(task, arm, arms[task, arm]) for task in TASKS for arm in ARMS if arms[task, arm]
    ]
    lines += [
        "",
        "| ratio of env steps/s | within a repeat, median (95 %) | from CPU seconds | target |",
        "|---|---|---|---|",
    ]
    return "\n".join([*lines, *_verdicts(found), "", tables.made(found)])


def _line(task: str, arm: str, found: list[dict[str, Any]]) -> str:
    def mid(name: str) -> float | None:
        values = [row[name] for row in found if row[name] is not None]
        return statistics.median(values) if values else None

    speeds = [row["steps_per_second"] for row in found]
    sampling, wait = mid("sample_seconds"), mid("label_wait_ms")
    return (
        f"| {task} | {arm} | {len(found)} | {statistics.median(speeds):,.0f} ({min(speeds):,.0f} "
        f"to {max(speeds):,.0f})"
        f" | {mid('mean_steps_per_second'):,.0f} | {mid('cpu_seconds_per_1000_steps'):.3f} | "
        f"{f'{1e3 * sampling:.0f} ms' if sampling else '-'} | {f'{wait:.1f} ms' if wait else '-'} |"
    )


def _verdicts(found: list[dict[str, Any]]) -> list[str]:
    lines = []
    for task in TASKS:
        for (arm, beside), target in TARGETS.items():
            speeds = ratios(found, task, (arm, beside), of="steps_per_second")
            if not speeds:
                continue
            low, high = interval_of_median(speeds)
            reached = statistics.median(speeds)
            cpu = statistics.median(
                ratios(found, task, (beside, arm), of="cpu_seconds_per_1000_steps")
            )
            verdict = "met" if reached >= target else "missed"
            lines.append(
                f"| {task}: {arm} / {beside} | {reached:.2f} ({low:.2f} to {high:.2f}) | "
                f"{cpu:.2f} | at least {target:.2f}: {verdict} |"
            )
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all")
    parser.add_argument("--arm", choices=ARMS, action="append", help="default: all")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument(
        "--quick", action="store_true", help="one short repeat, printed and not stored"
    )
    parser.add_argument(
        "--run", type=int, metavar="REPEAT", help="one run of one task and arm, in this process"
    )
    given = parser.parse_args()
    if given.run is not None:
        (task,), (arm,) = given.task, given.arm
        row = {"task": task, "arm": arm, "repeat": given.run}
        row |= measure(task, arm, seconds=QUICK_SECONDS if given.quick else SECONDS)
        print(json.dumps(row), flush=True)
        if not given.quick:
            rows.append("cost", row)
        return
    for repeat in range(1 if given.quick else given.repeats):
        for task in given.task or (TASKS[:1] if given.quick else TASKS):
            for arm in ORDERS[repeat % len(ORDERS)]:
                key = {"task": task, "arm": arm, "repeat": repeat}
                if arm in (given.arm or ARMS) and (given.quick or not rows.done("cost", key)):
                    quick = ["--quick"] if given.quick else []
                    alone.run(
                        "benchmarks.cost",
                        "--task",
                        task,
                        "--arm",
                        arm,
                        "--run",
                        str(repeat),
                        *quick,
                    )


if __name__ == "__main__":
    main()
