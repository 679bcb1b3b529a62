"""Plots of runs: learning curves over env steps, and what the reward model did meanwhile.

Runs that differ only by their seed are one group. Its line is the mean over the seeds,
and its band the 95% bootstrap interval of that mean. The colors are those of Okabe and
Ito, which color-blind eyes tell apart too, and every line has its own dash.

Shapes: R runs of a group, P grid points, N bootstrap resamples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from rlhp.config import loading
from rlhp.errors import RlhpError
from rlhp.storage.metrics import read_metrics, without_rewinds
from rlhp.storage.rundir import RunDir
from rlhp.types import Array

_SEEDLESS = ("name", "seed", "runs_dir")
_TAIL = re.compile(r"(-\d{8}-\d{6}(-\d+)?|[-_.](s|seed)[-_]?\d+)$")
GRID = 200
RESAMPLES = 1000
MOST_POINTS = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run as its directory shows it."""

    name: str
    rows: list[dict[str, Any]]
    sha256: str
    """Of the configuration without seed, name and place."""
    settings: dict[str, Any]
    """Dotted key -> value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Runs of one configuration under several seeds."""

    label: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """Mean over the runs of a group, and the 95% bootstrap interval of that mean."""

    steps: Array  # [P] env steps
    mean: Array  # [P]
    low: Array | None  # [P], None for a single run
    high: Array | None  # [P]
    runs: int


def read_run(path: str | Path) -> Run:
    """The metrics and settings of a run; ValueError where it is not a run or has no
    rows yet.
    """
    rundir = RunDir.open(path)
    rows = without_rewinds(read_metrics(rundir.metrics_file))
    if not rows:
        raise RlhpError(
            f"{path}: no metrics yet, so there is nothing to draw; rlhp status {path} says why"
        )
    config = loading.load(rundir.config_file)
    return Run(
        name=rundir.name,
        rows=rows,
        sha256=loading.sha256(config, without=_SEEDLESS),
        settings=loading.flat(config),
    )


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs of equal configuration together, in the order of their first appearance."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(run.sha256, []).append(run)
    members = list(together.values())
    return [
        Group(label=label, runs=tuple(runs))
        for label, runs in zip(_labels(members), members, strict=True)
    ]


def mean_curve(runs: Sequence[Run], name: str) -> Curve | None:
    """Metric `name` over env steps; None where no run has a value.

    Several runs are interpolated on the steps that all of them reached.
    """
    series = [points for run in runs if len((points := _points(run, name))[0])]
    if not series:
        return None
    if len(series) == 1:
        steps, values = (points[_thin(len(points))] for points in series[0])
        return Curve(steps=steps, mean=values, low=None, high=None, runs=1)
    start, stop = max(steps[0] for steps, _ in series), min(steps[-1] for steps, _ in series)
    grid = np.linspace(start, max(start, stop), GRID)
    values_RP = np.stack([np.interp(grid, steps, values) for steps, values in series])
    low, high = bootstrap_interval(values_RP)
    return Curve(steps=grid, mean=values_RP.mean(0), low=low, high=high, runs=len(series))


def evaluations(runs: Sequence[Run]) -> tuple[Array, Array, Array, Array] | None:
    """Env steps, mean, low and high of the evaluations, four arrays [P]; None where
    there were none.

    Several runs at one step: the 95% interval of their mean. A single run: one standard
    deviation of its episodes to either side.
    """
    at: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        for row in run.rows:
            if row.get("eval/episode_return_mean") is not None and row.get("env_steps") is not None:
                spread = row.get("eval/episode_return_std") or 0.0
                at.setdefault(row["env_steps"], []).append(
                    (row["eval/episode_return_mean"], spread)
                )
    if not at:
        return None
    points = []
    for steps, evaluated in sorted(at.items()):
        means = np.array([mean for mean, _ in evaluated])
        low, high = bootstrap_interval(means[:, None])
        spread = evaluated[0][1] if len(evaluated) == 1 else 0.0
        points.append((steps, means.mean(), low[0] - spread, high[0] + spread))
    steps_P, mean_P, low_P, high_P = np.array(points).T
    return steps_P, mean_P, low_P, high_P


def bootstrap_interval(values_RP: Array) -> tuple[Array, Array]:
    """95% percentile interval of the mean over R, per point: two arrays [P].

    With fewer than about five runs it is too narrow; the legend therefore counts them.
    """
    generator = np.random.default_rng(0)  # the same runs always give the same picture
    draws_NR = generator.integers(len(values_RP), size=(RESAMPLES, len(values_RP)))
    weights_NR = np.stack([np.bincount(draw, minlength=len(values_RP)) for draw in draws_NR]) / len(
        values_RP
    )
    low, high = np.percentile(weights_NR @ values_RP, [2.5, 97.5], axis=0)
    return low, high


def _thin(rows: int) -> Array:
    """Indices of at most MOST_POINTS rows, first and last among them: more cannot be
    seen.
    """
    return np.unique(np.linspace(0, rows - 1, min(rows, MOST_POINTS)).astype(int))


def _points(run: Run, name: str) -> tuple[Array, Array]:
    pairs = [
        (row["env_steps"], row[name])
        for row in run.rows
        if isinstance(row.get(name), (int, float)) and row.get("env_steps") is not None
    ]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return np.asarray(steps, np.float64), np.asarray(values, np.float64)


def _labels(members: Sequence[Sequence[Run]]) -> list[str]:
    """The common name of each group; where two share it, with the settings in which
    they differ.
    """
    stems = []
    for runs in members:
        names = {_stem(run.name) for run in runs}
        stems.append(names.pop() if len(names) == 1 else min(names))
    if len(set(stems)) == len(stems):
        return stems
    first = [runs[0].settings for runs in members]
    varying = [
        key
        for key in first[0]
        if key not in _SEEDLESS and len({repr(setting[key]) for setting in first}) > 1
    ]
    return [
        f"{stem} ({', '.join(f'{key}={setting[key]}' for key in varying[:3])})"
        for stem, setting in zip(stems, first, strict=True)
    ]


def _stem(name: str) -> str:
    while (shorter := _TAIL.sub("", name)) not in (name, ""):
        name = shorter
    return name


_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.8,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}
_TRUE = "env_runners/episode_return_mean"
_PREDICTED = "predicted_return_mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One pair of axes: a line per metric over env steps."""

    title: str
    unit: str
    metrics: tuple[tuple[str, str], ...]
    """Name in `rlhp.storage.metrics.METRICS`, label in the legend."""
    band: tuple[str, str] | None = None
    """Metrics that bound the first line: its interval."""
    reference: tuple[float, str] | None = None
    """A level worth knowing, and its name."""
    counts: bool = False
    """Whole numbers from zero."""
    stairs: bool = False
    """Drawn in stairs, since a slope would invent values between two rows."""


DIAGNOSTICS = (
    Panel(
        title="Accuracy",
        unit="share of pairs ranked right",
        metrics=(
            ("reward/fresh_accuracy", "fresh"),
            ("reward/heldout_accuracy", "held out"),
            ("reward/train_accuracy", "training"),
        ),
        band=("reward/fresh_accuracy_low", "reward/fresh_accuracy_high"),
        reference=(0.5, "chance"),
    ),
    Panel(
        title="Fresh accuracy by age of the segments",
        unit="share of pairs ranked right",
        metrics=(
            ("reward/fresh_accuracy_young", "younger half"),
            ("reward/fresh_accuracy_old", "older half"),
        ),
        reference=(0.5, "chance"),
    ),
    Panel(
        title="Preference loss",
        unit="cross-entropy [nats]",
        metrics=(("reward/val_loss", "validation"), ("reward/train_loss", "training")),
        reference=(math.log(2), "coin flip"),
    ),
    Panel(
        title="True vs predicted return",
        unit="Pearson correlation",
        metrics=(("return_correlation", "recent episodes"),),
    ),
    Panel(
        title="Calibration error, held out",
        unit="mean gap in P(first preferred)",
        metrics=(("reward/calibration_error", "held out"),),
    ),
    Panel(
        title="Labels",
        unit="queries",
        metrics=(
            ("labels/answered", "answered"),
            ("labels/asked", "asked"),
            ("labels/allowed", "schedule"),
            ("labels/budget", "budget"),
        ),
        counts=True,
    ),
    Panel(
        title="Open queries",
        unit="queries",
        metrics=(("queue/pending", "waiting"), ("queue/leased", "with a labeler")),
        counts=True,
    ),
    Panel(
        title="Reward version",
        unit="versions published",
        metrics=(("reward/version", "newest"),),
        counts=True,
        stairs=True,
    ),
    Panel(
        title="Predicted reward",
        unit="reward per step",
        metrics=(("reward/predicted_mean", "mean"), ("reward/predicted_std", "standard deviation")),
    ),
)


def plot(runs: Sequence[str | Path], *, out: str | Path | None = None) -> list[Path]:
    """Draw `runs` into PNG files and return their paths.

    `out` defaults to the `plots/` of a single run, and to `plots/` here for several.
    ValueError where a path is not a run or has no metrics yet.
    """
    groups = group_runs([read_run(run) for run in runs])
    if not groups:
        raise RlhpError("nothing to draw: name at least one run directory")
    directory = (
        Path(out) if out is not None else RunDir(runs[0]).plots if len(runs) == 1 else Path("plots")
    )
    directory.mkdir(parents=True, exist_ok=True)
    written = [directory / "learning_curves.png"]
    with mpl.rc_context(_STYLE):
        learning_curves(groups).savefig(written[0], dpi=150)
        for group in groups:
            figure = reward_diagnostics(group)
            if figure is not None:
                suffix = (
                    ""
                    if len(groups) == 1
                    else "_" + re.sub(r"[^A-Za-z0-9._=-]+", "-", group.label).strip("-")
                )
                written.append(directory / f"reward_diagnostics{suffix}.png")
                figure.savefig(written[-1], dpi=150)
    return written


def learning_curves(groups: Sequence[Group]) -> Figure:
    """True return, and beside it predicted return where a group has one."""
    predicted = [mean_curve(group.runs, _PREDICTED) for group in groups]
    columns = 2 if any(predicted) else 1
    figure = Figure(figsize=(6.0 * columns, 4.6), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for index, group in enumerate(groups):
        color, dash = _COLORS[index % len(_COLORS)], _DASHES[index % len(_DASHES)]
        label = f"{group.label} ({len(group.runs)} seed{'s' if len(group.runs) > 1 else ''})"
        true = mean_curve(group.runs, _TRUE)
        _draw(axes[0], true, color=color, dash=dash, label=label)
        _draw_evaluations(axes[0], group, color=color)
        if columns == 2:
            _draw(axes[1], predicted[index], color=color, dash=dash, label=label)
    _finish(axes[0], title="True return", unit="env reward per episode")
    if columns == 2:
        _finish(axes[1], title="Predicted return", unit="predicted reward per episode")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 if len(groups) > 2 else 2)
    _note(figure, groups)
    return figure


def reward_diagnostics(group: Group) -> Figure | None:
    """The reward model of one group; None where it had none (the control arm)."""
    panels = [
        panel
        for panel in DIAGNOSTICS
        if any(mean_curve(group.runs, name) for name, _ in panel.metrics)
    ]
    if not panels:
        return None
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.7 * columns, 3.1 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, panel in zip(grid, panels, strict=False):
        for index, (name, label) in enumerate(panel.metrics):
            curve = mean_curve(group.runs, name)
            _draw(
                axes,
                curve,
                color=_COLORS[index],
                dash=_DASHES[index],
                label=label,
                stairs=panel.stairs,
            )
        if panel.band is not None:
            _draw_band(axes, group, panel.band, color=_COLORS[0])
        if panel.reference is not None:
            level, label = panel.reference
            axes.axhline(level, color="#777777", linewidth=1, linestyle=(0, (1, 2)), label=label)
        _finish(axes, title=panel.title, unit=panel.unit)
        if panel.counts:
            axes.yaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
            axes.set_ylim(bottom=0)
        if len(panel.metrics) > 1:
            axes.legend()
    for axes in grid[len(panels) :]:
        axes.remove()
    seeds = len(group.runs)
    figure.suptitle(
        f"Reward model: {group.label} ({seeds} seed{'s' if seeds > 1 else ''})", fontsize=12
    )
    return figure


def _draw(
    axes: Axes, curve: Curve | None, *, color: str, dash: str, label: str, stairs: bool = False
) -> None:
    if curve is None:
        return
    style = "steps-post" if stairs and curve.runs == 1 else "default"
    marker = "o" if len(curve.steps) == 1 else None
    axes.plot(
        curve.steps,
        curve.mean,
        color=color,
        linestyle=dash,
        label=label,
        drawstyle=style,
        marker=marker,
    )
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)


def _draw_band(axes: Axes, group: Group, names: tuple[str, str], *, color: str) -> None:
    low, high = (mean_curve(group.runs, name) for name in names)
    if low is not None and high is not None and len(low.steps) == len(high.steps):
        axes.fill_between(low.steps, low.mean, high.mean, color=color, alpha=0.12, linewidth=0)


def _draw_evaluations(axes: Axes, group: Group, *, color: str) -> None:
    """One diamond per evaluation: mean and 95% interval over seeds, or over the
    episodes of the only run.
    """
    points = evaluations(group.runs)
    if points is None:
        return
    steps, mean, low, high = points
    axes.errorbar(
        steps,
        mean,
        yerr=[mean - low, high - mean],
        fmt="D",
        markersize=6,
        color=color,
        markeredgecolor="white",
        elinewidth=1.2,
        capsize=3,
        zorder=3,
    )


def _finish(axes: Axes, *, title: str, unit: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("env steps")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.margins(x=0.02)


def _note(figure: Figure, groups: Sequence[Group]) -> None:
    """What the marks mean, where there are any to explain."""
    notes = []
    if any(len(group.runs) > 1 for group in groups):
        notes.append("mean over seeds and its 95% bootstrap interval")
    if any(
        "eval/episode_return_mean" in row
        for group in groups
        for run in group.runs
        for row in run.rows
    ):
        notes.append("diamond: evaluation episodes")
    if notes:
        figure.suptitle("; ".join(notes), fontsize=9, color="#555555", x=0.99, ha="right")
