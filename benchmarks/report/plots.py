"""The plots of the page, drawn from the rows of the learning suites."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.report import intervals
from benchmarks.report.tables import Found, Row, by_chance, returns, shown
from benchmarks.rig.suites import CONTROL, SUITES

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {CONTROL: "#444444", "0": "#c7c7c7", "350": "#9ecae1", "700": "#4292c6", "1400": "#08519c"}
GRID = 40


def learning_curves(path: Path, suite: str = "mujoco") -> bool:
    """True return over env steps, one panel per task: mean over seeds, shaded from the
    lowest to the highest.
    """
    tasks, _ = shown(suite)
    if not tasks:
        return False
    figure, axes = plt.subplots(1, len(tasks), figsize=(3.4 * len(tasks), 3.2), squeeze=False)
    for axis, (task, arms) in zip(axes[0], tasks.items(), strict=True):
        for arm, some in arms.items():
            _band(
                axis, some, label=f"{arm} labels" if arm.isdigit() else arm, color=COLORS.get(arm)
            )
        axis.axhline(by_chance(arms), color="#444444", linewidth=0.8, linestyle=":")
        plain(axis, title=task.replace("_", " "), x="env steps (thousands)")
    axes[0][0].set_ylabel("true return")
    axes[0][-1].legend(frameon=False, fontsize=8)
    save(figure, path)
    return True


def by_labels(path: Path) -> bool:
    """F over labels, a line per task and the mean."""
    tasks = {task: arms for task, arms in shown("mujoco")[0].items() if CONTROL in arms}
    counts = [arm for arm in SUITES["mujoco"].arms if arm != CONTROL]
    if not tasks:
        return False
    figure, axis = plt.subplots(figsize=(6, 3.6))
    for task, arms in tasks.items():
        there = [count for count in counts if count in arms]
        chance, control = by_chance(arms), returns(arms[CONTROL])
        shares = [intervals.recovered(returns(arms[count]), control, chance) for count in there]
        middle = [share[0] for share in shares]
        errors = np.abs(np.array([[s[0] - s[1], s[2] - s[0]] for s in shares]).T)
        places = [counts.index(count) for count in there]
        axis.errorbar(
            places, middle, yerr=errors, marker="o", capsize=3, label=task.replace("_", " ")
        )
    axis.axhline(1.0, color="#444444", linewidth=0.8, linestyle=":")
    axis.set_xticks(range(len(counts)), counts)
    axis.set_ylim(bottom=max(-1.0, axis.get_ylim()[0]))
    axis.set_ylabel("F")
    plain(axis, title="share of the control arm's gain", x="labels")
    axis.legend(frameon=False, fontsize=8)
    save(figure, path)
    return True


def bars(suite: str, path: Path, *, perfect: str) -> bool:
    """One bar per arm and task: the share of what `perfect` gains over chance."""
    tasks: Found = {task: arms for task, arms in shown(suite)[0].items() if perfect in arms}
    names = [arm for arm in SUITES[suite].arms if arm != CONTROL]
    if not tasks:
        return False
    figure, axis = plt.subplots(figsize=(8, 3.4))
    width = 0.8 / len(tasks)
    for number, (task, arms) in enumerate(tasks.items()):
        chance, best = by_chance(arms), returns(arms[perfect])
        there = [name for name in names if name in arms]
        shares = [intervals.ratio(returns(arms[name]), best, chance) for name in there]
        errors = np.abs(np.array([[s[0] - s[1], s[2] - s[0]] for s in shares]).T)
        places = [names.index(name) + number * width for name in there]
        axis.bar(
            places,
            [s[0] for s in shares],
            width,
            yerr=errors,
            capsize=2,
            label=task.replace("_", " "),
        )
    axis.set_xticks(
        np.arange(len(names)) + width * (len(tasks) - 1) / 2,
        names,
        rotation=25,
        ha="right",
        fontsize=8,
    )
    axis.axhline(1.0, color="#444444", linewidth=0.8, linestyle=":")
    axis.legend(frameon=False, fontsize=8)
    plain(axis, title=f"{SUITES[suite].title.lower()}: share of `{perfect}`", x="")
    save(figure, path)
    return True


def _band(axis: Axes, some: Sequence[Row], *, label: str, color: str | None) -> None:
    curves = [np.array(row["curve"], np.float64) for row in some if len(row["curve"]) > 1]
    if not curves:
        return
    steps = np.linspace(max(c[0, 0] for c in curves), min(c[-1, 0] for c in curves), GRID)
    values = np.stack([np.interp(steps, curve[:, 0], curve[:, 1]) for curve in curves])
    axis.plot(steps / 1e3, values.mean(0), label=label, color=color)
    axis.fill_between(
        steps / 1e3, values.min(0), values.max(0), color=color, alpha=0.12, linewidth=0
    )


def plain(axis: Axes, *, title: str, x: str) -> None:
    """Title, name of the horizontal axis, no frame."""
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write and close."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
