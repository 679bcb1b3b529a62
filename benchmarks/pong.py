"""Pong from preferences in an hour on two cores, beside the same learner on the env
reward for as many steps.

    python -m benchmarks.pong  # both arms one after the other; the control arm took half an hour
    python -m benchmarks.pong --arm preferences
    python -m benchmarks.pong --quick             # two minutes, printed and not kept

`rlhp train configs/pong_hour.yaml` as a user runs it, seed 0. Kept are the curves of
true and predicted return, which are to rise together. The run directories stay under
`runs/`: a bench that was stopped goes on from the last checkpoint of its arm.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from benchmarks.report import rows, tables
from benchmarks.report.plots import plain, save
from benchmarks.rig.suites import CONFIGS, CONTROL, NONE, config_hash
from rlhp import program
from rlhp.config import loading
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir

NAME = "pong"
CONFIG = CONFIGS / "pong_hour.yaml"
ARMS = {"preferences": (), CONTROL: NONE}
GAMES = 10
POINTS = 120
SCORE_POINTS = 40
SCORE = "env_runners/game_score_mean"
QUICK = ("learner.total_env_steps=40000", "labels.budget=40", "evaluation.episodes=1")
CURVE = {
    "env_steps": "env_steps",
    "seconds": "wall_seconds",
    "true": "env_runners/episode_return_mean",
    "predicted": "predicted_return_mean",
    "correlation": "return_correlation",
}
"""Name in a row -> metric."""

Row = dict[str, Any]


def measure(arm: str, *, seed: int = 0, quick: bool = False) -> Row:
    """One arm to its end, or on from where it was stopped; its figures."""
    with tempfile.TemporaryDirectory() as scratch:
        name = f"pong-hour-{arm}-{seed}"
        sets = [
            f"seed={seed}",
            f"name={name}",
            f"evaluation.episodes={GAMES}",
            "tensorboard=false",
            *ARMS[arm],
        ]
        config = loading.load(
            CONFIG, sets=[*sets, *(QUICK if quick else ()), *([f"runs_dir={scratch}"] * quick)]
        )
        there = RunDir.existing(config.runs_dir, name)
        rundir = RunDir.create(config, name) if there is None else RunDir.open(there)
        summary = program.train(rundir.config(), rundir=rundir, resume=there is not None)
        if summary.interrupted:
            raise SystemExit(130)
        found = list(read_metrics(rundir.metrics_file))
        return {
            "arm": arm,
            "seed": seed,
            "config_sha256": config_hash(config),
            "env_steps": summary.env_steps,
            "labels": summary.labels_answered,
            "seconds": summary.wall_seconds,
            "random_return": summary.random_return,
            "true_return": summary.true_return,
            "resumed": there is not None,
            "heldout_accuracy": found[-1].get("reward/heldout_accuracy"),
            "curve": curve(found),
        }


def thin(found: Sequence[Any]) -> list[Any]:
    """Evenly chosen, the last one among them."""
    return (
        [found[int(i)] for i in np.unique(np.linspace(0, len(found) - 1, POINTS).round())]
        if found
        else []
    )


def curve(found: Sequence[Row]) -> dict[str, list[Any]]:
    """By name in `CURVE`, of rows from the first ended episode on; and scores of games
    that ended at about a time.
    """
    some = thin([row for row in found if row.get("env_runners/episode_return_mean") is not None])
    games = [(row["env_steps"], row[SCORE]) for row in found if row.get(SCORE) is not None]
    split: list[Any] = np.array_split(np.array(games).reshape(-1, 2), SCORE_POINTS)
    parts = [part for part in split if len(part)]
    return {
        **{name: [row.get(metric) for row in some] for name, metric in CURVE.items()},
        "score_steps": [float(part[:, 0].mean()) for part in parts],
        "score": [float(part[:, 1].mean()) for part in parts],
    }


def agreement(row: Row) -> float:
    """Pearson correlation of the two curves, true and predicted return, over the run."""
    lines = [row["curve"][name] for name in ("true", "predicted")]
    both = np.array([pair for pair in zip(*lines, strict=True) if None not in pair], np.float64)
    return float(np.corrcoef(both[:, 0], both[:, 1])[0, 1])


def section() -> str:
    """The tables for docs/benchmarks.md."""
    found = {row["arm"]: row for row in rows.read(NAME)}
    lines = [
        "## Pong in an hour",
        "",
        "    python -m benchmarks.pong",
        "",
        f"`configs/{CONFIG.name}`, distributed, one seed. True return per episode of 4,500 steps, "
        "in which one game follows another; score per game, from -21 to 21. The final policy "
        f"plays {GAMES} single games with its most likely actions.",
        "",
        "| arm | env steps | labels | minutes | score per game while learning, first and last | "
        "score of the final policy | random policy | held-out accuracy | correlation of the true "
        "and the predicted curve |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(found[arm]) for arm in ARMS if arm in found),
        "",
    ]
    missing = [f"Not run to its end yet: {arm}." for arm in ARMS if arm not in found]
    return "\n".join([*lines, *missing, *[""] * len(missing), tables.made(list(found.values()))])


def _line(row: Row) -> str:
    scores = row["curve"]["score"]
    last = ["-", "-"]
    if row["arm"] != CONTROL:
        last = [f"{row['heldout_accuracy']:.2f}", f"{agreement(row):.2f}"]
    return (
        f"| {row['arm']} | {row['env_steps']:,} | {row['labels'] or '-'} | "
        f"{row['seconds'] / 60:.0f} | {scores[0]:.1f}, {scores[-1]:.1f} | "
        f"{row['true_return']:.1f} | {row['random_return']:.1f} | {' | '.join(last)} |"
    )


def plot(path: Path) -> bool:
    """Scores of both arms, and true beside predicted return."""
    found = {row["arm"]: row for row in rows.read(NAME)}
    if "preferences" not in found:
        return False
    figure, (scores, returns) = plt.subplots(1, 2, figsize=(9, 3.2))
    for arm, row in found.items():
        steps = [each / 1e6 for each in row["curve"]["score_steps"]]
        scores.plot(
            steps, row["curve"]["score"], label=arm, color="#444444" if arm == CONTROL else None
        )
    plain(scores, title="score per game", x="env steps (millions)")
    scores.legend(frameon=False, fontsize=8)
    row = found["preferences"]
    steps = [each / 1e6 for each in row["curve"]["env_steps"]]
    returns.plot(steps, row["curve"]["true"], label="true")
    beside = returns.twinx()
    beside.plot(steps, row["curve"]["predicted"], color="C1", label="predicted")
    beside.spines[["top"]].set_visible(False)
    plain(returns, title="return: true (blue, left), predicted", x="env steps (millions)")
    save(figure, path)
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arm", choices=ARMS)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    for arm in [arguments.arm] if arguments.arm else ARMS:
        if arguments.quick:
            print(
                {name: value for name, value in measure(arm, quick=True).items() if name != "curve"}
            )
        elif not rows.done(NAME, {"arm": arm, "seed": 0}):
            rows.append(NAME, measure(arm))
    print(section() if rows.read(NAME) else "no rows yet")


if __name__ == "__main__":
    main()
