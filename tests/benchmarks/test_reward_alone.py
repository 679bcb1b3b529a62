"""The reward model alone: everybody gets the same pairs, and is judged by pairs that
nobody has seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import reward_alone
from benchmarks.imitation_peer import venv
from benchmarks.report import reward_alone_tables, rows
from benchmarks.rig import trajectories
from rlhp.types import Array

pytest.importorskip("mujoco", reason="the tasks of this bench are MuJoCo's, which is not installed")

EPISODES, STEPS = 30, 50


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of this test alone."""
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Array:
    """Episodes as long and wide as Reacher's; the reward [E, T] is returned and is the
    first number observed.
    """
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(EPISODES, STEPS + 1, 10)).astype(np.float32)
    actions = rng.uniform(-1, 1, size=(EPISODES, STEPS, 2)).astype(np.float32)
    rewards: Array = obs[:, :-1, 0]
    np.savez(
        tmp_path / "reacher.npz", allow_pickle=False, obs=obs, actions=actions, rewards=rewards
    )
    monkeypatch.setattr(trajectories, "STORE", tmp_path)
    return rewards


def measured(system: str, pairs: int, flipped: float, **figures: float) -> dict[str, Any]:
    """A row with these figures."""
    named = {
        "task": "reacher",
        "system": system,
        "seed": 0,
        "pairs": pairs,
        "flipped": flipped,
        "epochs": 200,
    }
    usual = {
        "accuracy": 0.9,
        "reward_correlation": 0.5,
        "return_correlation": 0.8,
        "fit_cpu_seconds": 1.0,
    }
    return {**named, **usual, **figures, "commit": "0123456789", "machine": "two cores"}


def test_held_out_pairs_come_from_other_episodes_and_the_teacher_is_exact(stored: Array) -> None:
    data = trajectories.pairs("reacher", seed=0)
    assert data["obs"].shape == (1400, 2, 16, 10)
    assert data["heldout_actions"].shape == (1000, 2, 15, 2)
    owner = {value: episode for episode, rewards in enumerate(stored) for value in rewards.tolist()}
    seen, judged = (
        {owner[value] for value in data[name].ravel().tolist()}
        for name in ("rewards", "heldout_rewards")
    )
    assert len(seen) == 20
    assert len(judged) == 10
    assert not seen & judged
    returns = data["rewards"].sum(-1, dtype=np.float64)
    np.testing.assert_array_equal(data["target"] == 1, returns[:, 0] > returns[:, 1])


def test_an_ensemble_fitted_to_stored_pairs_knows_the_held_out_ones(stored: Array) -> None:
    (row,) = reward_alone.measure("reacher", 0, [("rlhp", 200, 0.0)], epochs=20)
    assert row["accuracy"] > 0.8
    assert row["reward_correlation"] > 0.6
    assert (row["pairs"], row["judged"]) == (200, 1000)


def test_wrong_answers_make_it_worse(stored: Array) -> None:
    right, wrong = reward_alone.measure(
        "reacher", 0, [("rlhp", 200, 0.0), ("rlhp", 200, 1.0)], epochs=5
    )
    assert right["accuracy"] > 0.5 > wrong["accuracy"]


def test_ties_are_left_out_of_the_accuracy() -> None:
    rewards = np.array([[[1.0], [0.0]], [[0.0], [1.0]], [[1.0], [1.0]]])
    judged = reward_alone.judge(
        {"heldout_rewards": rewards}, np.array([[[5.0], [4.0]], [[5.0], [4.0]], [[5.0], [4.0]]])
    )
    assert (judged["accuracy"], judged["judged"]) == (0.5, 2)


@pytest.mark.optional
@pytest.mark.slow
@pytest.mark.skipif(
    not venv.made(), reason="needs imitation in .bench/imitation: python -m benchmarks.side_by_side"
)
def test_imitation_learns_from_the_same_pairs(stored: Array) -> None:
    found = reward_alone.measure(
        "reacher", 0, [("ensemble", 20, 0.0), ("basic", 20, 1.0)], epochs=8
    )
    right, wrong = sorted(found, key=lambda row: float(row["flipped"]))
    assert right["accuracy"] > 0.5 > wrong["accuracy"]
    assert min(right["fit_cpu_seconds"], wrong["fit_cpu_seconds"]) > 0


def test_only_missing_cells_are_measured(stored: Array) -> None:
    everything = [
        (system, 50, flipped)
        for flipped in (0.0, 0.1, 0.3)
        for system in reward_alone_tables.SYSTEMS
    ]
    for cell in everything:
        if cell != ("rlhp", 50, 0.3):
            rows.append("reward_alone", reward_alone.key("reacher", 0, cell))
    assert reward_alone.missing("reacher", 0, 50) == [("rlhp", 50, 0.3)]
    assert reward_alone.missing("reacher", 0, 50, systems=["stopped"]) == []
    reward_alone.run("reacher", 0, 50)
    assert rows.read("reward_alone")[-1]["fit_seconds"] > 0
    assert reward_alone.missing("reacher", 0, 50) == []


def test_passes_may_stop_early(stored: Array) -> None:
    all_passes, stopped = reward_alone.measure(
        "reacher", 0, [("rlhp", 20, 0.3), ("stopped", 20, 0.3)], epochs=200
    )
    assert stopped["reward_correlation"] != all_passes["reward_correlation"]
    assert stopped["config_sha256"] != all_passes["config_sha256"]


def test_the_section_compares_cell_by_cell() -> None:
    assert reward_alone_tables.section() == ""
    for flipped, gain in ((0.0, 0.02), (0.3, -0.01)):
        rows.append(
            "reward_alone", measured("rlhp", 200, flipped, accuracy=0.9 + gain, fit_cpu_seconds=0.5)
        )
        rows.append("reward_alone", measured("ensemble", 200, flipped, fit_cpu_seconds=20.0))
    page = reward_alone_tables.section()
    assert (
        "| reacher | 200 | 30% | imitation ensemble | 1 | 0.900 | 0.50 | 0.80 | 20.00 s |" in page
    )
    assert "2 cells: accuracy +0.005 on average, -0.010 to +0.020 (aim: not lower, reached)" in page
    assert "fitted 40 times as fast, 40 to 40 (aim: 10, reached)" in page
    assert "beside imitation basic" not in page


def test_pairs_of_other_episodes_are_not_compared(stored: Array) -> None:
    rows.append("reward_alone", {**measured("ensemble", 50, 0.1), "episodes_sha256": "of others"})
    rows.append(
        "reward_alone",
        reward_alone.key("reacher", 0, ("basic", 50, 0.1)) | measured("basic", 50, 0.1),
    )
    assert list(reward_alone_tables.newest(rows.read("reward_alone"))) == [
        ("reacher", "basic", 50, 0.1)
    ]
    assert ("ensemble", 50, 0.1) in reward_alone.missing("reacher", 0, 50)


def test_the_plot_is_drawn_from_rows(tmp_path: Path) -> None:
    assert not reward_alone_tables.plot(tmp_path / "none.png")
    for pairs in (50, 200):
        rows.append("reward_alone", measured("rlhp", pairs, 0.1))
    assert reward_alone_tables.plot(tmp_path / "images" / "accuracy.png")
    assert (tmp_path / "images" / "accuracy.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_half_trained_and_a_random_policy_play_episodes_of_one_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: None
) -> None:
    short = (
        "learner.train_batch_size=400",
        "rollout.num_envs_per_env_runner=4",
        "learner.num_epochs=1",
    )
    monkeypatch.setattr(trajectories, "STORE", tmp_path)
    monkeypatch.setitem(
        trajectories.SOURCES, "reacher", trajectories.Source("reacher.yaml", short, 400, 3)
    )
    made = trajectories.episodes("reacher")
    assert {name: part.shape for name, part in made.items()} == {
        "obs": (6, 51, 10), "actions": (6, 50, 2), "rewards": (6, 50)
    }  # fmt: skip
    assert np.isfinite(made["rewards"]).all()
    assert all(
        np.array_equal(part, made[name]) for name, part in trajectories.episodes("reacher").items()
    )
