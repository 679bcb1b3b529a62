"""Does a policy learned from preferences reach what the same learner reaches on the env
reward?

    python -m benchmarks.learning  # every suite that fits two cores; hours
    python -m benchmarks.learning --suite mujoco --task reacher --seeds 1
    python -m benchmarks.learning --suite mujoco --full  # the config files' own budgets, 10 seeds

A row is one run, in a process of its own, then 30 episodes of the final policy with its
most likely actions. Rows that are there are not run again. Returns do not depend on how
fast a serial run goes, so these may share the machine (`--jobs`); steps per second of
such rows are no measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import astuple
from functools import partial
from queue import Queue
from threading import Thread
from typing import Any

import ray

from benchmarks.busy import busy
from benchmarks.report import rows
from benchmarks.rig.alone import cpu_seconds
from benchmarks.rig.suites import SUITES, Measurement
from rlhp import program
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from rlhp.system.ray import ray_cluster

DEFAULT = ("headline", "mujoco", "pixels", "ablations", "teachers")
QUICK = "quick"
CURVE_POINTS = 25
DONE = "measured: "
PREFIX = "RLHP_BENCH_PREFIX"
"""Environment variable: a command that runs the runs, such as `nice -n 15`."""


def measure(measurement: Measurement) -> dict[str, Any]:
    """Run one and add its row; its figures."""
    serial = SUITES[measurement.suite].serial
    began = cpu_seconds()
    beside = SUITES[measurement.suite].beside.get(measurement.arm, 0)
    with tempfile.TemporaryDirectory() as scratch, busy(beside):
        config = measurement.config(runs_dir=scratch)
        rundir = RunDir.create(config, measurement.name)
        summary = program.train(rundir.config(), rundir=rundir, serial=serial)
        if summary.interrupted:
            raise SystemExit(130)
        name = f"{measurement.suite}-full" if measurement.full else measurement.suite
        figures = _figures(summary, rundir)
        if measurement.suite != QUICK:
            # of this process and all it started: Redis, and Ray's own, which outlive a
            # serial run
            rows.append(
                name,
                {**measurement.key(), **figures, "cpu_seconds": round(cpu_seconds() - began, 1)},
            )
        return figures


def _figures(summary: Any, rundir: RunDir) -> dict[str, Any]:
    last: dict[str, Any] = {}
    curve: list[list[float]] = []
    alarms: set[str] = set()
    for row in read_metrics(rundir.metrics_file):
        last.update({name: value for name, value in row.items() if value is not None})
        alarms |= set(filter(None, (row.get("alarms/names") or "").split(", ")))
        if (value := row.get("env_runners/episode_return_mean")) is not None:
            curve.append([row["env_steps"], round(value, 2)])
    return {
        "env_steps": summary.env_steps,
        "labels": summary.labels_answered,
        "random_return": summary.random_return,
        "true_return": summary.true_return,
        "true_return_std_over_episodes": summary.true_return_std,
        "train_return": last.get("env_runners/episode_return_mean"),
        "wall_seconds": summary.wall_seconds,
        "fresh_accuracy": last.get("reward/fresh_accuracy"),
        "heldout_accuracy": last.get("reward/heldout_accuracy"),
        "alarms": sorted(alarms),
        "sees_action": last.get("reward/sees_action"),
        "wait_seconds": last.get("reward/wait_seconds"),
        "return_correlation": last.get("return_correlation"),
        "tie_share": last.get("labels/ties", 0) / max(1, summary.labels_answered),
        "entropy": last.get("learner/entropy"),
        "predicted_mean": last.get("reward/predicted_mean"),
        "predicted_std": last.get("reward/predicted_std"),
        "reward_version": summary.reward_version,
        "curve": curve[:: max(1, len(curve) // CURVE_POINTS)] + curve[-1:],
    }


def _missing(measurement: Measurement) -> bool:
    name = f"{measurement.suite}-full" if measurement.full else measurement.suite
    return not rows.done(name, measurement.key())


class Workers:
    """Processes that run measurements one after the other, so that each pays once for
    its imports and its Ray.
    """

    def __init__(self, count: int) -> None:
        command = [
            *shlex.split(os.environ.get(PREFIX, "")),
            sys.executable,
            "-m",
            "benchmarks.learning",
            "--worker",
        ]
        self._start = partial(
            subprocess.Popen,
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._count = count

    def run(self, wanted: Sequence[Measurement]) -> Iterator[str]:
        """What became of each, in no order; one that fails takes its process along, and
        the next gets a new one.
        """
        waiting, told = deque(wanted), Queue[str]()
        threads = [
            Thread(target=self._work, args=(waiting, told), daemon=True) for _ in range(self._count)
        ]
        for thread in threads:
            thread.start()
        for _ in wanted:
            yield told.get()

    def _work(self, waiting: deque[Measurement], told: Queue[str]) -> None:
        process = None
        while waiting:
            try:
                measurement = waiting.popleft()
            except IndexError:
                break
            if process is None or process.poll() is not None:
                process = self._start()
            told.put(f"{measurement.name}: {_ask(process, measurement)}")
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait()


def _ask(process: subprocess.Popen[str], measurement: Measurement) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(astuple(measurement)) + "\n")
    process.stdin.flush()
    last: deque[str] = deque(maxlen=3)
    for line in process.stdout:
        if line.startswith(DONE):
            return line.removeprefix(DONE).strip()
        last.append(line.strip())
    return f"failed with {process.wait()}: {' | '.join(last)}"


def work() -> None:
    """Measure what comes as lines of JSON, until there are no more."""
    with ExitStack() as stack:
        for line in sys.stdin:
            measurement = Measurement(*json.loads(line))
            if SUITES[measurement.suite].serial and not ray.is_initialized():
                stack.enter_context(ray_cluster(measurement.config(), cpus=1))
            print(f"{DONE}{measure(measurement)['true_return']:.1f}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--suite", choices=sorted(SUITES), action="append", help=f"default: {', '.join(DEFAULT)}"
    )
    parser.add_argument("--task", action="append", help="default: all of the suite")
    parser.add_argument("--arm", action="append", help="default: all of the suite")
    parser.add_argument("--seeds", type=int, help="seeds 0..N-1; default: the task's own number")
    parser.add_argument(
        "--full", action="store_true", help="the budgets of the config files, 10 seeds"
    )
    parser.add_argument("--jobs", type=int, default=1, help="serial runs at a time")
    parser.add_argument("--quick", action="store_true", help="three short runs, no rows kept")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work()
        return
    wanted = [
        measurement
        for name in ((QUICK,) if given.quick else given.suite or DEFAULT)
        for measurement in SUITES[name].measurements(name, full=given.full)
        if (not given.task or measurement.task in given.task)
        and (not given.arm or measurement.arm in given.arm)
        and (given.seeds is None or measurement.seed < given.seeds)
        and _missing(measurement)
    ]
    print(f"{len(wanted)} runs are missing", flush=True)
    for serial, jobs in ((False, 1), (True, given.jobs)):
        for told in Workers(jobs).run(
            [each for each in wanted if SUITES[each.suite].serial == serial]
        ):
            print(told, flush=True)


if __name__ == "__main__":
    main()
