"""Does memory stay flat over an hour of Atari? Each role's own, sampled with every row
of metrics.

    python -m benchmarks.atari_memory                # an hour; how fast it goes does not matter
    python -m benchmarks.atari_memory --minutes 3 --quick

Pong from preferences in the paper's 84 x 84 frames, four to a stack, with networks for
CPUs. After an hour the run is stopped as by Ctrl-C. Its directory, `runs/atari-memory`,
stays; where it is there and long enough it is only read.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from scipy import stats

from benchmarks.pong import thin
from benchmarks.report import rows, tables
from benchmarks.report.plots import plain, save
from benchmarks.rig.suites import CONFIGS
from rlhp.storage.metrics import read_metrics

NAME = "atari_memory"
RUN = Path("runs/atari-memory")
CONFIG = CONFIGS / "pong.yaml"
SETS = (
    "labels.budget=1000",
    "labels.initial_share=0.06",
    "labels.schedule_c=100000",
    "reward.pretrain_epochs=4",
    "reward.network=cnn_coarse",
    "reward.label_uses_per_step=0.05",
    "reward.publish_every_steps=10000",
    "learner.network=cnn_coarse",
    "checkpoint.every_env_steps=50000",
    "evaluation.episodes=1",
)
"""Answers, fits, versions and checkpoints often, so that what they leave behind would
show.
"""
WARM_SHARE = 0.25
"""Memory is to be flat after this share of the hour: until then the pool and the buffers
fill.
"""
POLL_SECONDS = 1.0


def play(run: Path, *, minutes: float) -> None:
    """Train for so long, then stop as a person would."""
    words = [word for each in (*SETS, f"runs_dir={run.parent}") for word in ("--set", each)]
    command = [sys.executable, "-m", "rlhp", "train", str(CONFIG), "--name", run.name, *words]
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            if seconds(run) >= 60 * minutes:
                process.send_signal(signal.SIGINT)
                process.wait()


def seconds(run: Path) -> float:
    """How long it has trained, by its newest row; 0 before there is one."""
    file = run / "metrics.jsonl"
    return (
        max((row["wall_seconds"] for row in read_metrics(file)), default=0.0)
        if file.exists()
        else 0.0
    )


def measure(run: Path) -> dict[str, Any]:
    """What a run that was played shows."""
    found = list(read_metrics(run / "metrics.jsonl"))
    return {
        "minutes": found[-1]["wall_seconds"] / 60,
        "env_steps": found[-1]["env_steps"],
        "labels": found[-1].get("labels/answered"),
        "reward_version": found[-1].get("reward/version"),
        "memory": memory(found),
    }


def memory(found: Sequence[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """By role: [seconds, MB] over the run."""
    names = sorted({name for row in found for name in row if name.startswith("memory/")})
    series = {}
    for name in names:
        some = thin(
            [[row["wall_seconds"], row[name]] for row in found if row.get(name) is not None]
        )
        series[name.removeprefix("memory/").removesuffix("_mb").replace("_", " ")] = some
    return series


def growth(series: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """After the first quarter: median MB, most MB, and the slope of a robust line in MB
    per hour.
    """
    both = np.array(series, np.float64)
    both = both[both[:, 0] >= WARM_SHARE * both[-1, 0]]
    slope = stats.theilslopes(both[:, 1], both[:, 0]).slope  # no single reading moves it
    return float(np.median(both[:, 1])), float(both[:, 1].max()), 3600 * float(slope)


def section() -> str:
    """The table for docs/benchmarks.md."""
    row = rows.read(NAME)[-1]
    lines = [
        "## Memory over an hour of Atari",
        "",
        "    python -m benchmarks.atari_memory",
        "",
        f"Pong from preferences, 84 x 84 frames, {row['minutes']:.0f} minutes, "
        f"{row['env_steps']:,} env steps, {row['labels']:.0f} answers, "
        f"{row['reward_version']:.0f} reward versions; the machine was shared. Memory that is a "
        f"process's own, after the first {WARM_SHARE:.0%} of the time; growth by a Theil-Sen "
        "line. The reward trainer holds every answer that it fits, 0.4 MB of frames each, and "
        "more as it lays them out.",
        "",
        "| role | median, MB | most, MB | growth, MB per hour |",
        "|---|---|---|---|",
    ]
    for role, series in row["memory"].items():
        middle, most, slope = growth(series)
        lines.append(f"| {role} | {middle:,.0f} | {most:,.0f} | {slope:+,.0f} |")
    return "\n".join([*lines, "", tables.made([row])])


def plot(path: Path) -> bool:
    """Memory by role over time."""
    found = rows.read(NAME)
    if not found:
        return False
    figure, axis = plt.subplots(figsize=(6, 3.4))
    for role, series in found[-1]["memory"].items():
        axis.plot(
            [second / 60 for second, _ in series], [size / 1000 for _, size in series], label=role
        )
    axis.set_ylim(bottom=0)
    axis.set_ylabel("GB")
    plain(axis, title="memory of each role's own", x="minutes")
    axis.legend(frameon=False, fontsize=8)
    save(figure, path)
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--quick", action="store_true", help="in a folder of its own, printed and not kept"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        with tempfile.TemporaryDirectory() as scratch:
            play(Path(scratch) / RUN.name, minutes=arguments.minutes)
            print(
                {
                    role: growth(series)
                    for role, series in measure(Path(scratch) / RUN.name)["memory"].items()
                }
            )
        return
    if not any(row["minutes"] >= arguments.minutes for row in rows.read(NAME)):
        if seconds(RUN) < 60 * arguments.minutes:
            play(RUN, minutes=arguments.minutes)
        rows.append(NAME, measure(RUN))
    print(section())


if __name__ == "__main__":
    main()
