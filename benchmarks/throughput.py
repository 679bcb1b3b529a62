"""What preferences cost: env steps per second of the preference arm beside the control arm.

    python -m benchmarks.throughput          # HalfCheetah, 2 runners x 8 environments, 3 pairs

The arms alternate, same config and seed, nothing else running. A figure is the median over iterations of
the steps per second after learning began, so neither start-up nor warm-up counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile

from benchmarks import rows
from benchmarks.learning import CONFIGS
from rlhp import configfile, program
from rlhp.metrics import read_metrics
from rlhp.rundir import RunDir

STEPS = 80_000


def measure(arm: str, repeat: int) -> None:
    """Run one arm once, unless its row is there."""
    key = {"task": "halfcheetah", "arm": arm, "repeat": repeat}
    if rows.done("throughput", key):
        return
    with tempfile.TemporaryDirectory() as scratch:
        sets = [
            f"labels.source={arm}", f"runs_dir={scratch}", f"learner.total_env_steps={STEPS}",
            "checkpoint.every_env_steps=null", "tensorboard=false",
        ]  # fmt: skip
        config = configfile.load(CONFIGS / "halfcheetah.yaml", sets=sets)
        rundir = RunDir.create(config, f"throughput-{arm}")
        summary = program.train(rundir.config(), rundir=rundir)
        if summary.interrupted:
            raise SystemExit(130)
        learning = [row for row in read_metrics(rundir.metrics_file) if row["phase"] == "learning"][1:]
    sample = [row["time/sample_seconds"] for row in learning]
    waits = [row["reward/label_wait_ms"] for row in learning if row.get("reward/label_wait_ms") is not None]
    rows.append(
        "throughput",
        {
            **key,
            "env_runners": config.rollout.num_env_runners,
            "envs": config.rollout.num_envs_per_env_runner,
            "iterations": len(learning),
            "steps_per_second": statistics.median(row["env_steps_per_second"] for row in learning),
            "sample_seconds": statistics.median(sample),
            "label_wait_ms": statistics.median(waits) if waits else None,
        },
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    for repeat in range(repeats):
        for arm in ("none", "oracle"):
            measure(arm, repeat)


if __name__ == "__main__":
    main()
