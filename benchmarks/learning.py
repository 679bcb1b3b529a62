"""Does a policy learned from preferences reach what the same learner reaches on the env reward?

    python -m benchmarks.learning                  # every task below, both arms, all seeds; hours on two cores
    python -m benchmarks.learning --task pendulum --seeds 1

A row is one run: `rlhp train CONFIG` with a seed and an arm, then 30 episodes of the final policy, most
likely actions. F = (R_pref - R_random) / (R_true - R_random) over the means of an equal number of seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import rows
from rlhp import configfile, program
from rlhp.metrics import read_metrics
from rlhp.rundir import RunDir

CONFIGS = Path(__file__).parent.parent / "configs"
EPISODES = 30
ARMS = ("oracle", "none")


@dataclass(frozen=True)
class Task:
    """One config and how many seeds of it are the rule."""

    config: str
    seeds: int


TASKS = {"pendulum": Task("pendulum.yaml", 5), "halfcheetah": Task("halfcheetah.yaml", 3)}


def measure(task: str, arm: str, seed: int) -> None:
    """Run one arm with one seed, unless its row is there for the present config."""
    with tempfile.TemporaryDirectory() as scratch:
        sets = [
            f"seed={seed}", f"labels.source={arm}", f"evaluation.episodes={EPISODES}", f"runs_dir={scratch}",
            f"name=bench-{task}-{arm}-{seed}", "checkpoint.every_env_steps=null", "tensorboard=false",
        ]  # fmt: skip
        config = configfile.load(CONFIGS / TASKS[task].config, sets=sets)
        plain = config.model_copy(update={"runs_dir": "runs", "seed": 0})
        key = {"task": task, "arm": arm, "seed": seed, "config_sha256": configfile.sha256(plain)[:16]}
        if rows.done("learning", key):
            return
        rundir = RunDir.create(config, task)
        summary = program.train(rundir.config(), rundir=rundir)
        if summary.interrupted:
            raise SystemExit(130)
        rows.append("learning", {**key, **_figures(summary, rundir)})


def _figures(summary: Any, rundir: RunDir) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for row in read_metrics(rundir.metrics_file):
        last.update({name: value for name, value in row.items() if value is not None})
    return {
        "env_steps": summary.env_steps,
        "labels": summary.labels_answered,
        "random_return": summary.random_return,
        "true_return": summary.true_return,
        "true_return_std_over_episodes": summary.true_return_std,
        "train_return": last.get("env_runners/episode_return_mean"),
        "wall_seconds": summary.wall_seconds,
        "steps_per_second": summary.env_steps / summary.wall_seconds,
        "heldout_accuracy": last.get("reward/heldout_accuracy"),
        "return_correlation": last.get("return_correlation"),
        "tie_share": last.get("labels/ties", 0) / max(1, summary.labels_answered),
        "entropy": last.get("learner/entropy"),
        "predicted_mean": last.get("reward/predicted_mean"),
        "predicted_std": last.get("reward/predicted_std"),
        "reward_version": summary.reward_version,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(TASKS), action="append", help="default: all")
    parser.add_argument("--arm", choices=ARMS, action="append", help="default: both")
    parser.add_argument("--seeds", type=int, help="seeds 0..N-1; default: the task's own number")
    arguments = parser.parse_args()
    for task in arguments.task or TASKS:
        for seed in range(arguments.seeds or TASKS[task].seeds):
            for arm in arguments.arm or ARMS:
                measure(task, arm, seed)


if __name__ == "__main__":
    main()
