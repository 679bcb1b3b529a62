"""Every file in configs/ is a run that can start."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhp.config.loading import flat, load
from rlhp.envs.atari import SCORES, game_of
from rlhp.envs.make import probe, variable_length_warning
from rlhp.envs.mujoco_tasks import TASKS, known_task

CONFIGS = Path(__file__).parents[2] / "configs"
SHARED = {"mujoco.yaml", "atari.yaml", "paper.yaml"}
TASK_FILES = {
    "ant": "Ant",
    "halfcheetah": "HalfCheetah",
    "hopper": "Hopper",
    "humanoid": "Humanoid",
    "inverted_double_pendulum": "InvertedDoublePendulum",
    "inverted_pendulum": "InvertedPendulum",
    "reacher": "Reacher",
    "swimmer": "Swimmer",
    "walker2d": "Walker2d",
}
GAMES = ["beamrider", "breakout", "enduro", "pong", "qbert", "seaquest", "spaceinvaders"]
OTHER_GAMES = ["pong_20m", "pong_hour", "enduro_alongside", "enduro_human_290"]
OTHER_FILES = ["cartpole", "lunarlander", "moving_dot", "pendulum"]


@pytest.mark.parametrize("name", [*TASK_FILES, *OTHER_FILES, *GAMES, *OTHER_GAMES])
def test_the_file_names_an_environment_with_equally_long_episodes_that_segments_fit_in(
    name: str,
) -> None:
    if name == "lunarlander":
        for package in ("Box2D", "pygame"):
            pytest.importorskip(
                package, reason=f"LunarLander needs {package}, which is not installed"
            )
    if name in GAMES + OTHER_GAMES:
        pytest.importorskip(
            "ale_py", reason="Atari games need ale-py, which is not installed: pip install ale-py"
        )
    config = load(CONFIGS / f"{name}.yaml")
    facts = probe(config.env)
    assert config.query.segment_length <= facts.episode_limit
    assert variable_length_warning(facts) is None


@pytest.mark.parametrize("name", TASK_FILES)
def test_a_mujoco_file_has_the_paper_s_task_and_segment_and_the_learner_of_all(name: str) -> None:
    config = load(CONFIGS / f"{name}.yaml")
    task = TASKS[TASK_FILES[name]]
    assert known_task(config.env.id) is task
    assert config.env.hide_termination
    assert config.query.segment_length == task.segment_length
    assert config.labels.budget == 700
    shared = load(CONFIGS / "halfcheetah.yaml")
    assert config.learner.model_dump(exclude={"total_env_steps"}) == shared.learner.model_dump(
        exclude={"total_env_steps"}
    )
    assert config.reward == shared.reward


@pytest.mark.parametrize("name", GAMES)
def test_a_game_s_file_has_the_paper_s_segment_labels_and_penalty_and_its_score_is_blanked(
    name: str,
) -> None:
    config = load(CONFIGS / f"{name}.yaml")
    game = game_of(config.env)
    assert game in SCORES
    assert config.env.hide_termination
    assert config.env.termination_penalty == (0 if name == "pong" else 1)
    assert (config.query.segment_length, config.labels.budget) == (25, 5500)
    assert round(config.labels.budget * config.labels.initial_share) == 500
    assert config.labels.instruction


def test_every_run_tells_people_what_to_judge_by() -> None:
    silent = [
        path.name
        for path in CONFIGS.glob("*.yaml")
        if not load(path, sets=["env.id=X"]).labels.instruction
    ]
    assert set(silent) == SHARED


@pytest.mark.parametrize("name", [*GAMES, "pong_20m", "enduro_alongside"])
def test_a_game_s_networks_are_the_paper_s(name: str) -> None:
    config = load(CONFIGS / f"{name}.yaml")
    reward = config.reward
    assert (reward.network, reward.hidden, reward.dropout, reward.use_action) == (
        "cnn",
        (64,),
        0.5,
        False,
    )
    assert (reward.members, reward.error_rate, reward.target_std) == (3, 0.1, 0.05)
    assert flat(config)["learner.network"] == "cnn"
    assert config.rollout.num_env_runners * config.rollout.num_envs_per_env_runner == 16


def test_every_task_has_a_file() -> None:
    assert set(TASK_FILES.values()) == set(TASKS)
    assert {path.name for path in CONFIGS.glob("*.yaml")} >= SHARED
