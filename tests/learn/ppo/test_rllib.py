"""Our keys become RLlib's, and `learner.rllib` passes on what RLlib knows and nothing
else.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from rlhp.config.schema import RunConfig
from rlhp.envs.make import probe
from rlhp.envs.spaces import ActionSpec
from rlhp.errors import RlhpError
from rlhp.learn.ppo.algorithm import PreferencePPOConfig
from rlhp.learn.ppo.rllib import (
    FORBIDDEN,
    OURS,
    algorithm_config,
    check_actions,
    check_batch,
    check_passthrough,
)
from rlhp.run.preflight import check
from tests.small_runs import action_space, small


def built(config: RunConfig, *, resumed: int = 0) -> PreferencePPOConfig:
    """The RLlib config of this run."""
    return algorithm_config(
        config, probe(config.env).spaces, action_space=action_space(config), resumed=resumed
    )


def test_our_keys_arrive_under_rllibs_names() -> None:
    settings = built(
        small(
            learner={
                "lr": 2e-3,
                "lr_final": None,
                "gamma": 0.9,
                "gae_lambda": 0.8,
                "clip": 0.1,
                "vf_clip": 5.0,
                "vf_coeff": 0.25,
                "entropy_coeff": 0.01,
                "kl_coeff": 0.3,
                "kl_target": 0.02,
                "grad_clip": 1.5,
                "log_std_init": -0.5,
            }
        )
    )
    assert (settings.lr, settings.gamma, settings.lambda_) == (2e-3, 0.9, 0.8)
    assert (settings.clip_param, settings.vf_clip_param, settings.vf_loss_coeff) == (0.1, 5.0, 0.25)
    assert (settings.entropy_coeff, settings.kl_coeff, settings.kl_target) == (0.01, 0.3, 0.02)
    assert (settings.grad_clip, settings.grad_clip_by, settings.policy_start.log_std_init) == (
        1.5,
        "global_norm",
        -0.5,
    )
    assert (
        settings.train_batch_size_per_learner,
        settings.minibatch_size,
        settings.num_epochs,
    ) == (60, 30, 2)
    assert settings.use_kl_loss
    assert settings.batch_mode == "truncate_episodes"


def test_no_value_clip_and_no_kl_penalty_are_said_in_rllibs_way() -> None:
    settings = built(small())
    assert settings.vf_clip_param == float("inf")
    assert not settings.use_kl_loss


def test_the_learning_rate_falls_in_a_line_to_its_final_value() -> None:
    settings = built(small(learner={"lr": 1e-3, "lr_final": 1e-5, "total_env_steps": 5000}))
    assert settings.lr == [[0, 1e-3], [5000, 1e-5]]


@pytest.mark.parametrize(
    ("batch", "runners", "envs", "rows"),
    [(60, 0, 3, 20), (61, 0, 3, 21), (2048, 2, 8, 128), (100, 3, 7, 5)],
)
def test_one_round_of_all_env_runners_fills_a_batch(
    batch: int, runners: int, envs: int, rows: int
) -> None:
    config = small(
        rollout={"num_env_runners": runners, "num_envs_per_env_runner": envs},
        learner={"train_batch_size": batch, "minibatch_size": 10},
    )
    settings = built(config)
    assert settings.rollout_fragment_length == rows
    assert settings.total_train_batch_size == batch
    assert max(1, runners) * envs * rows >= batch


def test_several_learners_share_one_batch() -> None:
    settings = built(small(learner={"num_learners": 2, "train_batch_size": 100}))
    assert settings.train_batch_size_per_learner == 50
    assert settings.total_train_batch_size == 100


def test_a_further_setting_reaches_rllib() -> None:
    settings = built(
        small(learner={"rllib": {"sample_timeout_s": 7, "episode_lookback_horizon": 3}})
    )
    assert settings.sample_timeout_s == 7
    assert settings.episode_lookback_horizon == 3


REFUSED = {
    "sample_timeout": (
        "learner.rllib.sample_timeout: PPOConfig of RLlib has no such setting; did you mean "
        "sample_timeout_s?"
    ),
    "use_critic": (
        "learner.rllib.use_critic: cannot be changed, the loop over minibatches is rlhp's own, "
        "and does without"
    ),
    "qqqqqqqqqqq": "learner.rllib.qqqqqqqqqqq: PPOConfig of RLlib has no such setting",
    "clip_param": "learner.rllib.clip_param: say it as learner.clip, not twice",
    "lambda_": "learner.rllib.lambda_: say it as learner.gae_lambda, not twice",
    "batch_mode": "learner.rllib.batch_mode: cannot be changed, fragments are cut by env steps",
    "env_runner_cls": (
        "learner.rllib.env_runner_cls: cannot be changed, the columnar env runner is what asks "
        "for predicted rewards"
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_cannot_be_passed_on_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(REFUSED[name])}$"):
        built(small(learner={"rllib": {name: 1}}))


@pytest.mark.parametrize(
    ("batch", "runners", "envs", "learners"),
    [
        (60, 0, 100, 0),
        (60, 0, 66, 0),
        (60, 0, 67, 0),
        (60, 0, 31, 0),
        (60, 0, 41, 0),
        (61, 0, 61, 2),
        (2048, 8, 100, 0),
    ],
)
def test_a_batch_that_rllib_would_refuse_is_refused_before_the_start_and_no_other(
    batch: int, runners: int, envs: int, learners: int
) -> None:
    config = small(
        rollout={"num_env_runners": runners, "num_envs_per_env_runner": envs},
        learner={"train_batch_size": batch, "minibatch_size": 10, "num_learners": learners},
    )
    settings = built(config)
    try:
        settings.validate_train_batch_size_vs_rollout_fragment_length()
    except ValueError:
        with pytest.raises(RlhpError, match=r"Set learner\.train_batch_size=\d+") as caught:
            check_batch(config)
        fitting = int(str(caught.value).rpartition("train_batch_size=")[2].partition(",")[0])
        config = small(rollout=config.rollout.model_dump(), learner={"train_batch_size": fitting})
    check_batch(config)


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"learner\.rllib\.") as caught:
        check_passthrough({"gamma": 0.9, "rlhp": None, "no_such_thing": 1, "explore": True})
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "learner.rllib.gamma",
        "learner.rllib.rlhp",
        "learner.rllib.no_such_thing",
    ]


def test_every_name_that_is_ours_exists_on_both_sides() -> None:
    rllib = PreferencePPOConfig()
    ours: dict[str, Any] = small().model_dump()
    for name, key in OURS.items():
        assert hasattr(rllib, name), name
        value = ours
        for part in key.split("."):
            assert part in value, f"{name} -> {key}"
            value = value[part]
    assert all(hasattr(rllib, name) for name in FORBIDDEN)


def test_any_seed_is_one_that_generators_take_and_a_resumed_run_draws_anew() -> None:
    seeds = [
        built(small(seed=seed), resumed=resumed).seed
        for seed in (0, 1, 10**9)
        for resumed in (0, 1, 2)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_only_continuous_actions_have_a_standard_deviation() -> None:
    box = built(small())
    discrete = built(small(env={"kwargs": {"discrete": True}}))
    assert box._model_config.free_log_std
    assert not discrete._model_config.free_log_std


def test_actions_that_no_policy_of_ours_can_draw_are_refused_before_anything_starts() -> None:
    message = (
        "the learner draws continuous actions as one row of floats; tests.environments:Matrix "
        "takes shape (2, 2) of float64. Wrap the environment with "
        "gymnasium.wrappers.TransformAction."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check(small(env={"id": "tests.environments:Matrix"}))
    for whole in (ActionSpec(shape=(2,), dtype="<i8"), ActionSpec(shape=(), dtype="<f4")):
        with pytest.raises(ValueError, match="one row of floats"):
            check_actions("own", whole)
    check_actions("own", ActionSpec(shape=(), dtype="<i8", choices=(3,), start=(0,)))
