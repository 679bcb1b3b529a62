"""kill -9 at random moments, then `rlhp train --resume` until the end: is every trial
consistent?

    python -m benchmarks.resume_trials                 # ten serial trials, ten distributed ones
    python -m benchmarks.resume_trials --kind serial --trials 3

A serial trial is consistent when metrics, policy, reward and answers are, number by
number, those of the run that was never killed. A distributed one when it reaches its
end with no answer lost, none counted twice, no pair asked twice, and reward versions
that only grow. Each trial is killed once to three times: while it starts, after a
number of env steps, or while it ends, as drawn from its seed. A finished trial is not
run again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.report import rows
from rlhp.learn.checkpoint import Checkpoints
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from rlhp.types import comparison_id

NAME = "resume"
ON_THE_CLOCK = ("seconds", "per_second", "per_minute", "_ms", "_us_", "age", "memory")
"""In the name of every metric that reads a clock, or how much memory there is."""
SETTINGS: dict[str, Any] = {
    "name": "trial",
    "env": {"id": "Pendulum-v1"},
    "rollout": {"num_env_runners": 2, "num_envs_per_env_runner": 4},
    "labels": {"budget": 80, "initial_share": 0.25},
    "query": {"segment_length": 20, "pool": 200},
    "reward": {
        "hidden": [32],
        "pretrain_epochs": 20,
        "batch_size": 16,
        "reservoir": 1000,
        "publish_every_steps": 1000,
        "label_uses_per_step": 0.2,
    },
    "learner": {"hidden": [32], "train_batch_size": 800, "minibatch_size": 200, "num_epochs": 5},
    "evaluation": {"episodes": 2},
    "checkpoint": {"every_env_steps": 3000},
    "tensorboard": False,
}
POLL_SECONDS = 0.05
START_SECONDS, STEP_SECONDS = 10.0, 1.0
"""The most by which a kill follows the start, and the env steps that it waited for."""
STEPS = {"serial": 24_000, "distributed": 60_000}


@dataclass(frozen=True)
class Moment:
    """So long after so many env steps."""

    env_steps: int
    seconds: float


def moments(dice: random.Random, kind: str) -> list[Moment]:
    """Draw the moments at which a trial is killed: one to three of them, each while it
    starts, while it goes on, or while it ends.
    """
    drawn = []
    for _ in range(dice.randint(1, 3)):
        share = dice.uniform(-0.15, 1.1)
        steps = round(min(1.0, max(0.0, share)) * STEPS[kind])
        drawn.append(Moment(steps, dice.uniform(0.0, START_SECONDS if share < 0 else STEP_SECONDS)))
    return sorted(drawn, key=lambda moment: moment.env_steps)


class Trial:
    """One run in a folder of its own."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.path = folder / "runs" / "trial"
        self._config, self._output = folder / "trial.yaml", folder / "output.txt"
        learner = {**SETTINGS["learner"], "total_env_steps": STEPS[kind]}
        self._config.write_text(
            yaml.dump({**SETTINGS, "learner": learner, "runs_dir": str(folder / "runs")})
        )
        self._flags = ["--serial"] if kind == "serial" else []

    def run(self, moment: Moment | None = None) -> bool:
        """Start it, or go on with it, until its end or, at `moment`, its death; whether
        it was killed.
        """
        what = (
            ["--resume", str(self.path)]
            if (self.path / "run.json").exists()
            else [str(self._config)]
        )
        command = [sys.executable, "-m", "rlhp", "train", *what, *self._flags]
        with self._output.open("ab") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True
            )
            while moment is not None and process.poll() is None and self.steps() < moment.env_steps:
                time.sleep(POLL_SECONDS)
            try:
                process.wait(None if moment is None else moment.seconds)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return True
        if process.returncode != 0:
            raise RuntimeError(
                f"{' '.join(command)} ended with "
                f"{process.returncode}:\n{self._output.read_text()[-2000:]}"
            )
        return False

    def steps(self) -> int:
        """Env steps of the last row on disk."""
        file = self.path / "metrics.jsonl"
        found = read_metrics(file) if file.exists() else []
        return int(found[-1]["env_steps"]) if found else 0


def numbers(path: Path) -> dict[str, Any]:
    """All that must be equal after a serial run."""
    rundir = RunDir.open(path)
    newest = Checkpoints(rundir.checkpoints, keep=9).newest()
    assert newest is not None
    policy = torch.load(newest / "policy.pt", weights_only=True)["module"]
    history = [
        {
            name: value
            for name, value in row.items()
            if not any(word in name for word in ON_THE_CLOCK)
        }
        for row in read_metrics(rundir.metrics_file)
    ]
    return {
        "metrics": history,
        "policy": {name: value.numpy().tobytes() for name, value in policy.items()},
        "reward": max((path / "reward").glob("*.reward")).read_bytes(),
        "answers": [(row.query_id, row.answer) for row in PreferenceDataset.open(path).events()],
    }


def troubles(path: Path) -> list[str]:
    """What is wrong with the answers and versions of a finished run."""
    rundir, dataset = RunDir.open(path), PreferenceDataset.open(path)
    events = dataset.events()
    answers = [row for row in events if row.event == "answer"]
    pairs = [comparison_id(row.candidate_ids) for row in answers]
    versions = [
        row["reward/version"]
        for row in read_metrics(rundir.metrics_file)
        if row.get("reward/version")
    ]
    with EmbeddedRedis(rundir.redis) as server, QueryQueue(server.url, run=rundir.name) as queue:
        stats = queue.stats()
    found = {
        "the run did not end": rundir.info().state != "finished",
        "an event is stored twice": len({row.key for row in events}) != len(events),
        "a pair was asked twice": len(set(pairs)) != len(pairs),
        "an answer is not on disk": stats.backlog != 0 or stats.answered > len(answers),
        "an answer without its segments": dataset.counts()["without_segments"] != 0,
        "more answers than the budget": len(answers) > SETTINGS["labels"]["budget"],
        "a reward version fell": versions != sorted(versions),
    }
    return [name for name, holds in found.items() if holds]


def measure(kind: str, seed: int, *, calm: dict[str, Any] | None) -> dict[str, Any]:
    """One trial, killed at moments drawn from its seed."""
    with tempfile.TemporaryDirectory(prefix="rlhp-resume-") as folder:
        trial, killed_at = Trial(Path(folder), kind), []
        for moment in moments(random.Random(f"{kind} {seed}"), kind):
            if trial.run(moment):
                killed_at.append(trial.steps())
        trial.run()
        found = troubles(trial.path)
        if calm is not None:
            mine = numbers(trial.path)
            found += [
                f"other {name} than the calm run" for name in calm if mine[name] != calm[name]
            ]
        info = RunDir.open(trial.path).info()
    return {
        "kind": kind, "seed": seed, "killed_at_env_steps": killed_at, "resumed": info.resumed,
        "consistent": not found, "troubles": found,
    }  # fmt: skip


HEAD = """## Runs that were killed and resumed

`python -m benchmarks.resume_trials`: `kill -9` of the driver at random moments, one to three times
per trial, then `rlhp train --resume` to the end. A serial trial is consistent when metrics, policy,
reward and answers are, number by number, those of the run that was never killed; a distributed one
when no answer was lost or counted twice, no pair was asked twice and reward versions only grew.

| kind | trials | kills | env steps | consistent |
|---|---|---|---|---|
"""


def section() -> str:
    """The table of docs/benchmarks.md."""
    lines = []
    for kind in STEPS:
        mine = [row for row in rows.read(NAME) if row["kind"] == kind]
        if mine:
            kills = sum(len(row["killed_at_env_steps"]) for row in mine)
            good = sum(row["consistent"] for row in mine)
            lines.append(
                f"| {kind} | {len(mine)} | {kills} | {STEPS[kind]:,} | {good} of {len(mine)} |"
            )
    return HEAD + "\n".join(lines)


def main() -> int:
    """Exit code 1 where a trial was not consistent."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--kind", choices=[*STEPS], action="append")
    arguments.add_argument("--trials", type=int, default=10, help="of each kind")
    given = arguments.parse_args()
    good = True
    for kind in given.kind or [*STEPS]:
        seeds = [
            seed
            for seed in range(given.trials)
            if not rows.done(NAME, {"kind": kind, "seed": seed})
        ]
        if not seeds:
            continue
        calm = None
        if kind == "serial":
            with tempfile.TemporaryDirectory(prefix="rlhp-resume-calm-") as folder:
                undisturbed = Trial(Path(folder), kind)
                undisturbed.run()
                calm = numbers(undisturbed.path)
        for seed in seeds:
            row = measure(kind, seed, calm=calm)
            rows.append(NAME, row)
            good = good and row["consistent"]
            print(json.dumps(row), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
