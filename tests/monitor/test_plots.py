"""Curves and pictures: who is grouped with whom, what the interval is, and that a
picture comes out.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from rlhp.config import loading
from rlhp.monitor import plots
from rlhp.monitor import plots as plotting
from rlhp.storage.metrics import MetricsWriter
from rlhp.storage.rundir import RunDir


def made(folder: Path, name: str, *sets: str, rows: list[dict[str, float]]) -> Path:
    settings = ["env.id=E", f"runs_dir={folder}", f"name={name}", *sets]
    rundir = RunDir.create(loading.parse({}, sets=settings), name)
    with MetricsWriter(rundir, tensorboard=False) as metrics:
        for row in rows:
            metrics.write(row)
    return rundir.path


def returns(*values: float, every: int = 100) -> list[dict[str, float]]:
    return [
        {"env_steps": every * (index + 1), "env_runners/episode_return_mean": value}
        for index, value in enumerate(values)
    ]


def test_runs_that_differ_by_seed_are_one_group(tmp_path: Path) -> None:
    paths = [
        made(tmp_path, "half-s0", "seed=0", rows=returns(1)),
        made(tmp_path, "half-s1", "seed=1", rows=returns(2)),
        made(tmp_path, "control-20260101-101010", "labels.source=none", rows=returns(3)),
    ]
    groups = plots.group_runs([plots.read_run(path) for path in paths])
    assert [(group.label, len(group.runs)) for group in groups] == [("half", 2), ("control", 1)]


def test_groups_of_one_name_are_told_apart_by_their_settings(tmp_path: Path) -> None:
    paths = [
        made(tmp_path, f"half-s{index}", "seed=0", f"labels.budget={budget}", rows=returns(1))
        for index, budget in enumerate([350, 700])
    ]
    labels = [group.label for group in plots.group_runs([plots.read_run(path) for path in paths])]
    assert labels == ["half (labels.budget=350)", "half (labels.budget=700)"]


def test_the_mean_is_taken_on_the_steps_all_runs_reached(tmp_path: Path) -> None:
    runs = [
        plots.read_run(made(tmp_path, "a-s0", rows=returns(0, 10, 20, 30))),
        plots.read_run(made(tmp_path, "a-s1", rows=returns(10, 20, 30))),
    ]
    curve = plots.mean_curve(runs, "env_runners/episode_return_mean")
    assert curve is not None
    assert (curve.steps[0], curve.steps[-1], curve.runs) == (100, 300, 2)
    np.testing.assert_allclose(curve.mean, 5 + (curve.steps - 100) / 10)
    assert curve.low is not None
    assert curve.high is not None
    # of two runs, a resample is one, the other or both
    np.testing.assert_allclose(curve.high - curve.low, 10)


def test_a_metric_that_no_run_has_is_no_curve(tmp_path: Path) -> None:
    run = plots.read_run(made(tmp_path, "a", rows=returns(1)))
    assert plots.mean_curve([run], "reward/version") is None
    assert plots.evaluations([run]) is None


def test_the_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    values = np.random.default_rng(0).normal(size=(20, 400))
    low, high = plots.bootstrap_interval(values)
    covered = ((low < 0) & (high > 0)).mean()
    assert 0.90 < covered < 0.97  # 95% nominal, a little less for 20 runs; 400 trials


def test_a_long_run_is_thinned_to_what_can_be_seen(tmp_path: Path) -> None:
    run = plots.read_run(made(tmp_path, "a", rows=returns(*range(5000))))
    curve = plots.mean_curve([run], "env_runners/episode_return_mean")
    assert curve is not None
    assert len(curve.steps) == plots.MOST_POINTS
    assert curve.mean[-1] == 4999


def full(values: int = 20) -> list[dict[str, float]]:
    rows = returns(*np.linspace(-100, 200, values))
    for index, row in enumerate(rows):
        row |= {name: index / 20 for panel in plotting.DIAGNOSTICS for name, _ in panel.metrics}
        row["predicted_return_mean"] = float(index)
    rows[-1] |= {"eval/episode_return_mean": 210.0, "eval/episode_return_std": 12.0}
    return rows


def test_pictures_are_written_for_every_group(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    paths = [
        made(tmp_path, "half-s0", "seed=0", rows=full()),
        made(tmp_path, "half-s1", "seed=1", rows=full()),
        made(tmp_path, "control", "labels.source=none", rows=returns(1, 2, 3)),
    ]
    files = plotting.plot(paths, out=tmp_path / "out")
    assert [file.name for file in files] == ["learning_curves.png", "reward_diagnostics_half.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert dict(mpl.rcParams) == before


def test_a_single_run_is_drawn_into_its_own_directory(tmp_path: Path) -> None:
    path = made(tmp_path, "a", rows=full(1))
    assert plotting.plot([path]) == [
        path / "plots" / "learning_curves.png",
        path / "plots" / "reward_diagnostics.png",
    ]


def test_every_axis_says_what_it_shows(tmp_path: Path) -> None:
    (group,) = plots.group_runs([plots.read_run(made(tmp_path, "a", rows=full()))])
    diagnostics = plotting.reward_diagnostics(group)
    assert diagnostics is not None
    for axes in [*plotting.learning_curves([group]).axes, *diagnostics.axes]:
        assert axes.get_xlabel() == "env steps"
        assert axes.get_ylabel()
        assert axes.get_title(loc="left") or axes.get_title()


def test_a_run_without_metrics_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = made(tmp_path, "a", rows=[])
    with pytest.raises(
        ValueError, match="no metrics yet, so there is nothing to draw; rlhp status"
    ):
        plotting.plot([path])
