"""rlhp beside imitation: the peer's steps are counted where they are taken, and nothing
is measured twice.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import side_by_side
from benchmarks.imitation_peer import venv
from benchmarks.imitation_peer.settings import SETTINGS, fingerprint
from benchmarks.report import rows
from rlhp.config import loading

COUNTED_RUN = """
import json
import gymnasium as gym
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from benchmarks.imitation_peer.settings import SETTINGS
from benchmarks.imitation_peer.train import train
from dataclasses import replace

class Taken(gym.Wrapper):
    steps = 0
    def step(self, action):
        Taken.steps += 1
        return self.env.step(action)

envs = DummyVecEnv([lambda: Monitor(Taken(gym.make("Pendulum-v1")))] * 2)
sizes = {"comparisons": 10, "iterations": 1, "rollout_steps": 128, "episodes": 1}
tiny = replace(SETTINGS["pendulum"], total_timesteps=500, **sizes)
answer = train(tiny, seed=0, venv=envs)
print(json.dumps({**answer, "taken": Taken.steps, "asked": tiny.total_timesteps}))
"""


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of this test alone."""
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the peer's interpreter that notes how it was called, in the file
    returned, and answers.
    """
    calls, python = tmp_path / "calls", tmp_path / "bin" / "python"
    answer = (
        '{"env_steps": 10000, "labels": 7, "true_return": -150.0, '
        '"training_seconds": 2.0, "training_ended": 4e9}'
    )
    python.parent.mkdir()
    python.write_text(
        f"#!/bin/sh\necho \"$@\" >> {calls}\necho noise\necho '{answer}'\n", encoding="utf-8"
    )
    python.chmod(0o755)
    monkeypatch.setattr(venv, "VENV", tmp_path)
    monkeypatch.setattr(venv, "PYTHON", python)
    venv._stamp().touch()
    return calls


def row(task: str, system: str, seed: int, *, speed: float, true_return: float) -> dict[str, Any]:
    """One measurement as `_timed` leaves it."""
    return {
        "task": task,
        "system": system,
        "seed": seed,
        "config_sha256": "now",
        "env_steps": 77_440,
        "labels": 200,
        "true_return": true_return,
        "training_seconds": 77_440 / speed,
        "steps_per_second": speed,
        "steps_per_second_with_start": speed / 2,
        "commit": "0123456789",
        "machine": "two cores",
    }


@pytest.mark.optional
@pytest.mark.slow
@pytest.mark.skipif(
    not venv.made(), reason="needs imitation in .bench/imitation: python -m benchmarks.side_by_side"
)
def test_the_counter_counts_what_the_environments_took() -> None:
    answer = venv.timed([str(venv.PYTHON), "-c", COUNTED_RUN])
    assert answer["env_steps"] == answer["taken"] > answer["asked"]
    assert answer["labels"] == 10


def test_only_missing_rows_are_measured(peer: Path) -> None:
    for seed in (0, 1):
        rows.append(
            "side_by_side",
            {**side_by_side.our_key("pendulum", seed, env_steps=10_000), "true_return": -200.0},
        )
    rows.append("side_by_side", {**side_by_side.peer_key("pendulum", 0), "env_steps": 10_000})
    side_by_side.run("pendulum", 2)
    assert peer.read_text().splitlines() == [
        "-m benchmarks.imitation_peer.train --task pendulum --seed 1"
    ]
    measured = rows.read("side_by_side")[-1]
    assert side_by_side.peer_key("pendulum", 1).items() <= measured.items()
    assert measured["steps_per_second"] == 5000
    assert measured["process_seconds"] > 0


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="ended with 3:\nno such task"):
        venv.timed(
            [sys.executable, "-c", "import sys; sys.stderr.write('no such task'); sys.exit(3)"]
        )


@pytest.mark.parametrize("task", sorted(side_by_side.TASKS))
def test_both_sides_get_the_same_labels_and_rlhp_the_steps_that_the_peer_took(task: str) -> None:
    sets = side_by_side.our_sets(task, 3, env_steps=433_920)
    config = loading.load(side_by_side.CONFIGS / side_by_side.TASKS[task].config, sets=sets)
    last = config.learner.total_env_steps - 1  # a run that stands there takes one more batch
    assert last + loading.flat(config)["learner.train_batch_size"] == 433_920
    assert config.labels.budget == SETTINGS[task].comparisons
    assert config.evaluation.episodes == SETTINGS[task].episodes
    assert config.env.id.partition("-v")[0] == SETTINGS[task].env.partition("-v")[0]
    assert not config.env.hide_termination  # the plain env reward on both sides


def test_a_changed_setting_of_the_peer_is_another_measurement() -> None:
    settings = SETTINGS["pendulum"]
    assert (
        fingerprint(replace(settings, iterations=60))
        != fingerprint(settings)
        == fingerprint(replace(settings))
    )


def test_the_section_shows_every_seed_and_whether_the_aims_are_reached() -> None:
    assert side_by_side.section() == ""
    for seed, (theirs, ours) in enumerate([(-250.0, -150.0), (-290.0, -180.0)]):
        rows.append(
            "side_by_side", row("pendulum", "imitation", seed, speed=2500, true_return=theirs)
        )
        rows.append("side_by_side", row("pendulum", "rlhp", seed, speed=4000, true_return=ours))
    page = side_by_side.section()
    assert (
        "| pendulum | imitation | 2 | 77,440 | 200 | -270.0 (-290.0 to -250.0) | -250, -290 | 31 "
        "s | 2,500 |" in page
    )
    assert "1.60 times imitation's env steps per second while training" in page
    assert "(aim: 2, not reached); true return -165.0 beside -270.0 (aim: -200, reached)" in page
    assert "halfcheetah |" not in page


def test_rows_of_an_older_config_leave_the_table() -> None:
    old = {**row("pendulum", "rlhp", 0, speed=1000, true_return=-900.0), "config_sha256": "before"}
    new = row("pendulum", "rlhp", 1, speed=4000, true_return=-150.0)
    assert side_by_side.newest([old, new], "pendulum", "rlhp") == [new]
