"""One run of rlhp in a process of its own, so that its start-up is timed as a peer's
is; prints one JSON line.

python -m benchmarks.rig.one_run configs/pendulum.yaml --set seed=3
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rlhp import program
from rlhp.config import loading
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir


def run(config_file: Path, sets: list[str]) -> dict[str, Any]:
    """Train, evaluate, throw the run directory away; what the run took and what it
    reached.
    """
    with tempfile.TemporaryDirectory() as scratch:
        quiet = [f"runs_dir={scratch}", "checkpoint.every_env_steps=null", "tensorboard=false"]
        rundir = RunDir.create(loading.load(config_file, sets=[*sets, *quiet]), "benchmark")
        summary = program.train(rundir.config(), rundir=rundir)
        if summary.interrupted:
            raise SystemExit(130)
        warm_up = [
            row["env_steps"]
            for row in read_metrics(rundir.metrics_file)
            if row["phase"] == "warm-up"
        ]
        return {
            "env_steps": summary.env_steps,
            "warm_up_steps": max(warm_up, default=0),
            "labels": summary.labels_answered,
            "training_seconds": summary.wall_seconds,
            # the last row is written when the last update is done; evaluation and
            # shutdown write none
            "training_ended": rundir.metrics_file.stat().st_mtime,
            "true_return": summary.true_return,
            "true_return_std_over_episodes": summary.true_return_std,
            "episodes": summary.episodes,
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.config, arguments.set)))


if __name__ == "__main__":
    main()
