"""Sweeps: what a search space may say, what a trial reserves, and two real trials."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhp.config import loading
from rlhp.experiments import sweep
from rlhp.storage.rundir import RunDir
from tests.small_runs import SMALL, small

ROOT = Path(__file__).parents[2]


def file(folder: Path, search: Any, **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    settings = {name: value for name, value in SMALL.items() if name != "name"}
    path.write_text(yaml.dump({**settings, **changes, "search": search}))
    return path


def test_a_search_space_is_read_and_the_rest_is_the_configuration(tmp_path: Path) -> None:
    space = {"learner.lr": {"loguniform": [1e-4, 1e-2]}, "seed": {"grid": [0, 1]}}
    config, search = sweep.load(file(tmp_path, space), sets=["reward.members=3"])
    assert search == space
    assert (config.reward.members, config.query.segment_length) == (3, 5)


def test_the_sweep_that_comes_with_the_project_can_be_read() -> None:
    for path in (ROOT / "configs/sweeps").glob("*.yaml"):
        _, search = sweep.load(path, sets=[])
        assert search


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (None, "a sweep needs `search:`, a mapping of dotted keys"),
        (
            {"learner.lr": {"normal": [0, 1]}},
            r"search\.learner\.lr: one of choice, grid, uniform, .* got {'normal'",
        ),
        ({"learner.lr": [1, 2]}, r"search\.learner\.lr: one of "),
        ({"learner.lr": {"uniform": [2, 1]}}, "uniform takes a low end, a high end, got"),
        ({"learner.lr": {"loguniform": [0, 1]}}, "loguniform needs ends above 0"),
        ({"seed": {"choice": []}}, "choice takes a list, got"),
        ({"learner.rate": {"uniform": [1, 2]}}, r"learner\.rate: unknown key"),
        ({"seed": {"choice": ["many"]}}, "seed: must be a whole number"),
    ],
)
def test_a_bad_search_space_is_told_in_a_line(search: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(loading.ConfigError, match=words):
        sweep.load(file(tmp_path, search), sets=[])


def test_a_trial_reserves_its_driver_first_then_env_runners_then_learners() -> None:
    config = small(
        rollout={"num_env_runners": 2, "resources": {"rollout": 1}},
        learner={"num_learners": 1, "num_gpus_per_learner": 1, "resources": {"learner": 1}},
        reward={"num_gpus": 0.25},
    )
    runner = {"CPU": 1, "rollout": 1}
    assert sweep.placement(config).bundles == [
        {"CPU": 1, "GPU": 0.25}, runner, runner, {"GPU": 1, "learner": 1}, {"GPU": 0.25}
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.cluster
def test_two_trials_are_two_runs_ranked_by_their_return(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        {"seed": {"grid": [0, 1]}},
        runs_dir=str(tmp_path / "runs"),
        rollout={**SMALL["rollout"], "num_env_runners": 1},
        learner={**SMALL["learner"], "total_env_steps": 120},
    )
    command = [sys.executable, "-m", "rlhp", "tune", str(path), "--name", "sweep", "--at-once", "2"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        json.loads(line) for line in (tmp_path / "runs/sweep.sweep.jsonl").read_text().splitlines()
    ]
    assert sorted(row["seed"] for row in rows) == [0, 1]
    assert rows[0]["true_return"] >= rows[1]["true_return"]
    for row, line in zip(rows, done.stdout.splitlines()[-2:], strict=True):
        rundir = RunDir.open(tmp_path / "runs" / row["trial"])
        assert (rundir.info().state, rundir.config().seed) == ("finished", row["seed"])
        assert (
            json.loads((rundir.path / "summary.json").read_text())["true_return"]
            == row["true_return"]
        )
        assert f"true return {row['true_return']:.1f}" in line
        assert str(rundir.path) in line
