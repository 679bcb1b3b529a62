"""The bench of novel behavior counts what happened, keeps the best episode, and runs
nothing twice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import novel
from benchmarks.report import rows
from rlhp.types import Array

pytest.importorskip("mujoco", reason="the bench reads bodies with mujoco, which is not installed")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of this test alone."""
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def turning(turns: float, *, height: float, steps: int = 500) -> Array:
    """[T, 6] a hopper that turns backward so many times."""
    qpos = np.zeros((steps, 6))
    qpos[:, 1], qpos[:, 2] = height, np.linspace(0, -2 * np.pi * turns, steps)
    return qpos


@pytest.mark.parametrize(("turns", "flips"), [(0.9, 0), (1.1, 2), (3.5, 6), (-3.0, 0)])
def test_whole_backward_turns_are_flips_per_thousand_steps(turns: float, flips: float) -> None:
    assert novel.backflips(turning(turns, height=9.0))["flips"] == flips


def test_rolling_on_the_ground_turns_and_is_no_flip() -> None:
    # the joint below the floor: something always touches
    figures = novel.backflips(turning(3.5, height=0.0))
    assert (figures["turns"], figures["flips"], figures["fallen"]) == (6, 0, 1)


def test_a_cheetah_on_all_feet_is_fast_and_not_on_one_leg() -> None:
    qpos = np.zeros((100, 9))
    qpos[:, 0], qpos[:, 1] = 0.1 * np.arange(100), -0.3
    assert novel.one_leg(qpos) == {"one_leg": 0.0, "front_up": 0.0, "speed": pytest.approx(2.0)}


@pytest.mark.parametrize("task", sorted(novel.TASKS))
def test_chance_is_measured_once_and_shown(
    task: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        novel.measure(task, "random", 0, quick=True)
    (row,) = rows.read("novel-quick")
    assert capsys.readouterr().out.count("\n") == 1
    assert set(novel.TASKS[task].columns) <= set(row)
    rows.append("novel", row)
    assert (
        f"| random policy | 1 | 0 | {row[next(iter(novel.TASKS[task].columns))]:.2f} |"
        in novel.section()
    )


def test_the_states_of_the_best_episode_are_kept(results: Path) -> None:
    worse, best = np.zeros((10, 13)), np.ones((10, 13))
    novel._keep("backflip", worse, seed=0, figure=1.0)
    novel._keep("backflip", best, seed=1, figure=5.0)
    novel._keep("backflip", worse, seed=2, figure=4.0)
    with np.load(novel.clip("backflip"), allow_pickle=False) as kept:
        assert (kept["state"] == best).all()
        assert (int(kept["seed"]), float(kept["figure"])) == (1, 5.0)


@pytest.mark.slow
def test_a_quick_run_trains_on_a_judge_s_answers_and_plays_its_policy(results: Path) -> None:
    novel.measure("backflip", "judge", 0, quick=True)
    (row,) = rows.read("novel-quick")
    assert row["labels"] == novel.QUICK["labels.budget"]
    assert row["env_steps"] >= novel.QUICK["learner.total_env_steps"]
