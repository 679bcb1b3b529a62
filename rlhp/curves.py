"""Metrics of several runs as curves: runs that differ only by seed are one group with an interval.

Shapes: R runs of a group, P grid points, N bootstrap resamples.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhp import configfile
from rlhp.errors import RlhpError
from rlhp.metrics import read_metrics, without_rewinds
from rlhp.rundir import RunDir
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
    """The metrics and settings of a run; ValueError where it is not a run or has no rows yet."""
    rundir = RunDir.open(path)
    rows = without_rewinds(read_metrics(rundir.metrics_file))
    if not rows:
        raise RlhpError(f"{path}: no metrics yet, so there is nothing to draw; rlhp status {path} says why")
    config = configfile.load(rundir.config_file)
    return Run(
        name=rundir.name,
        rows=rows,
        sha256=configfile.sha256(config, without=_SEEDLESS),
        settings=configfile.flat(config),
    )


def group(runs: Sequence[Run]) -> list[Group]:
    """Runs of equal configuration together, in the order of their first appearance."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(run.sha256, []).append(run)
    members = list(together.values())
    return [Group(label=label, runs=tuple(runs)) for label, runs in zip(_labels(members), members, strict=True)]


def curve(runs: Sequence[Run], name: str) -> Curve | None:
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
    """Env steps, mean, low and high of the evaluations, four arrays [P]; None where there were none.

    Several runs at one step: the 95% interval of their mean. A single run: one standard deviation of
    its episodes to either side.
    """
    at: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        for row in run.rows:
            if row.get("eval/episode_return_mean") is not None and row.get("env_steps") is not None:
                spread = row.get("eval/episode_return_std") or 0.0
                at.setdefault(row["env_steps"], []).append((row["eval/episode_return_mean"], spread))
    if not at:
        return None
    points = []
    for steps, found in sorted(at.items()):
        means = np.array([mean for mean, _ in found])
        low, high = bootstrap_interval(means[:, None])
        spread = found[0][1] if len(found) == 1 else 0.0
        points.append((steps, means.mean(), low[0] - spread, high[0] + spread))
    steps_P, mean_P, low_P, high_P = np.array(points).T
    return steps_P, mean_P, low_P, high_P


def bootstrap_interval(values_RP: Array) -> tuple[Array, Array]:
    """95% percentile interval of the mean over R, per point: two arrays [P].

    With fewer than about five runs it is too narrow; the legend therefore counts them.
    """
    generator = np.random.default_rng(0)  # the same runs always give the same picture
    draws_NR = generator.integers(len(values_RP), size=(RESAMPLES, len(values_RP)))
    weights_NR = np.stack([np.bincount(draw, minlength=len(values_RP)) for draw in draws_NR]) / len(values_RP)
    low, high = np.percentile(weights_NR @ values_RP, [2.5, 97.5], axis=0)
    return low, high


def _thin(rows: int) -> Array:
    """Indices of at most MOST_POINTS rows, first and last among them: more cannot be seen."""
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
    """The common name of each group; where two share it, with the settings in which they differ."""
    stems = []
    for runs in members:
        names = {_stem(run.name) for run in runs}
        stems.append(names.pop() if len(names) == 1 else min(names))
    if len(set(stems)) == len(stems):
        return stems
    first = [runs[0].settings for runs in members]
    varying = [key for key in first[0] if key not in _SEEDLESS and len({repr(setting[key]) for setting in first}) > 1]
    return [
        f"{stem} ({', '.join(f'{key}={setting[key]}' for key in varying[:3])})"
        for stem, setting in zip(stems, first, strict=True)
    ]


def _stem(name: str) -> str:
    while (shorter := _TAIL.sub("", name)) not in (name, ""):
        name = shorter
    return name
