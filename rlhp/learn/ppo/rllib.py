"""From our YAML to an RLlib config: the one place where the two vocabularies meet.

`learner.rllib` passes further PPO settings through by RLlib's own names. RLlib itself
takes unknown names in silence, so they are checked here; names that belong to us are
refused.
"""

from __future__ import annotations

import difflib
import math
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from rlhp.config.schema import PPOLearnerConfig, RunConfig
from rlhp.envs.spaces import ActionSpec, Spaces
from rlhp.errors import RlhpError
from rlhp.learn.ppo.algorithm import PolicyStart, PreferencePPOConfig
from rlhp.models.convolution import POLICY, choose
from rlhp.rollout.context import RunnerContext
from rlhp.rollout.normalization import RunningMoments

ENV_NAME = "rlhp-environment"

OURS = {
    "env": "env.id",
    "env_config": "env.kwargs",
    "seed": "seed",
    "num_env_runners": "rollout.num_env_runners",
    "num_envs_per_env_runner": "rollout.num_envs_per_env_runner",
    "gym_env_vectorize_mode": "rollout.vectorize",
    "lr": "learner.lr",
    "gamma": "learner.gamma",
    "lambda_": "learner.gae_lambda",
    "train_batch_size_per_learner": "learner.train_batch_size",
    "minibatch_size": "learner.minibatch_size",
    "num_epochs": "learner.num_epochs",
    "clip_param": "learner.clip",
    "vf_clip_param": "learner.vf_clip",
    "vf_loss_coeff": "learner.vf_coeff",
    "entropy_coeff": "learner.entropy_coeff",
    "kl_coeff": "learner.kl_coeff",
    "kl_target": "learner.kl_target",
    "grad_clip": "learner.grad_clip",
    "num_learners": "learner.num_learners",
    "custom_resources_per_env_runner": "rollout.resources",
    "custom_resources_per_learner": "learner.resources",
    "num_gpus_per_learner": "learner.num_gpus_per_learner",
}
"""RLlib's name -> our key for what must not be said twice."""

FORBIDDEN = {
    "batch_mode": "fragments are cut by env steps",
    "rollout_fragment_length": "it follows from learner.train_batch_size",
    "env_runner_cls": "the columnar env runner is what asks for predicted rewards",
    "rlhp": "it is set by the run",
    "policy_start": "learner.network, log_std_init and policy_head_scale say it",
    "clip_rewards": "predicted rewards are normalized by the reward version",
    "enable_rl_module_and_learner": "only the new API stack is supported",
    "enable_env_runner_and_connector_v2": "only the new API stack is supported",
    **dict.fromkeys(
        (
            "use_critic",
            "use_gae",
            "shuffle_batch_per_epoch",
            "grad_clip_by",
            "log_gradients",
            "torch_skip_nan_gradients",
            "torch_compile_learner",
            "_torch_grad_scaler_class",
            "_torch_lr_scheduler_classes",
            "_learner_class",
        ),
        "the loop over minibatches is rlhp's own, and does without",
    ),
}
"""RLlib's name -> why it cannot be changed."""


def ppo_keys(config: RunConfig) -> PPOLearnerConfig:
    """The keys of PPO in this run, which learns by PPO."""
    assert isinstance(config.learner, PPOLearnerConfig), config.learner.algorithm
    return config.learner


def algorithm_config(
    config: RunConfig, spaces: Spaces, *, action_space: gym.Space[Any], resumed: int = 0
) -> PreferencePPOConfig:
    """The PPO config of this run, started again `resumed` times; ValueError for a wrong
    `learner.rllib`.
    """
    register_env(ENV_NAME, lambda _: None)  # the columnar runner makes its own environments
    learner, rollout = ppo_keys(config), config.rollout
    at_first = rollout.min_env_runners
    if at_first is None:
        at_first = rollout.num_env_runners
    envs = runners_at_first(config) * rollout.num_envs_per_env_runner
    rows = math.ceil(learner.train_batch_size / envs)
    algorithm = PreferencePPOConfig()
    algorithm.api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
    algorithm.environment(
        ENV_NAME, observation_space=spaces.obs.flat_space(), action_space=action_space
    )
    algorithm.env_runners(
        num_env_runners=at_first,
        num_envs_per_env_runner=rollout.num_envs_per_env_runner,
        num_cpus_per_env_runner=rollout.num_cpus_per_env_runner,
        custom_resources_per_env_runner=rollout.resources,
        rollout_fragment_length=rows,
        batch_mode="truncate_episodes",
        sample_timeout_s=600,
        env_to_module_connector=_moments_connector,
    )
    _ppo(algorithm, learner)
    _policy(algorithm, learner, spaces, action_space)
    algorithm.learners(
        num_learners=learner.num_learners,
        num_gpus_per_learner=learner.num_gpus_per_learner,
        custom_resources_per_learner=learner.resources,
    )
    algorithm.fault_tolerance(
        restart_failed_env_runners=True,
        max_num_env_runner_restarts=1_000_000,
        delay_between_env_runner_restarts_s=1,
        env_runner_health_probe_timeout_s=5,  # only asked when one has answered already
        env_runner_restore_timeout_s=60,
    )
    # A resumed run draws anew: with the seed it began with it would repeat its first
    # episodes.
    seed = (10_007 * (config.seed + 1) + 1_000_003 * resumed) % 2**31
    algorithm.debugging(seed=seed, log_level="ERROR")
    algorithm.rlhp = RunnerContext.of(
        config,
        spaces,
        resumed=resumed,
        normalize_obs=learner.normalize_obs and spaces.obs.picture is None,
        normalize_control_reward=learner.normalize_control_reward,
    )
    _pass_through(algorithm, learner.rllib)
    return algorithm


def _policy(
    algorithm: PreferencePPOConfig,
    learner: PPOLearnerConfig,
    spaces: Spaces,
    action_space: gym.Space[Any],
) -> None:
    """Which networks, and how they begin."""
    network = choose(learner.network, spaces.obs.picture, of=POLICY, key="learner.network")
    algorithm.policy_start = PolicyStart(
        network=network,
        log_std_init=learner.log_std_init,
        head_scale=learner.policy_head_scale,
    )
    algorithm.rl_module(
        model_config=DefaultModelConfig(
            conv_filters=None if network is None else [network, learner.pixels],
            fcnet_hiddens=list(learner.hidden),
            fcnet_activation=learner.activation,
            vf_share_layers=network is not None,
            free_log_std=isinstance(action_space, gym.spaces.Box),
        )
    )


def _ppo(algorithm: PreferencePPOConfig, learner: PPOLearnerConfig) -> None:
    """How PPO learns from a batch."""
    lr: Any = learner.lr
    if learner.lr_final is not None:
        lr = [[0, learner.lr], [learner.total_env_steps, learner.lr_final]]
    algorithm.training(
        lr=lr,
        gamma=learner.gamma,
        lambda_=learner.gae_lambda,
        train_batch_size_per_learner=-(-learner.train_batch_size // max(1, learner.num_learners)),
        minibatch_size=learner.minibatch_size,
        num_epochs=learner.num_epochs,
        clip_param=learner.clip,
        vf_clip_param=float("inf") if learner.vf_clip is None else learner.vf_clip,
        vf_loss_coeff=learner.vf_coeff,
        entropy_coeff=learner.entropy_coeff,
        use_kl_loss=learner.kl_coeff > 0,
        kl_coeff=learner.kl_coeff,
        kl_target=learner.kl_target,
        grad_clip=learner.grad_clip,
        grad_clip_by="global_norm",
    )


def check_actions(env_id: str, action: ActionSpec) -> None:
    """ValueError for actions that RLlib's Gaussian policy cannot draw."""
    if not action.choices and (len(action.shape) != 1 or np.dtype(action.dtype).kind != "f"):
        raise RlhpError(
            f"the learner draws continuous actions as one row of floats; {env_id} takes shape "
            f"{action.shape} of {np.dtype(action.dtype)}. Wrap the environment with "
            "gymnasium.wrappers.TransformAction."
        )


def check_batch(config: RunConfig) -> None:
    """RlhpError where whole rows of all environments are no batch of the wanted size,
    of which RLlib asks a tenth.
    """
    learner, rollout = ppo_keys(config), config.rollout
    envs = runners_at_first(config) * rollout.num_envs_per_env_runner
    wanted, learners = learner.train_batch_size, max(1, learner.num_learners)
    total = -(-wanted // learners) * learners
    whole = -(-wanted // envs) * envs
    collected = -(-total // whole) * whole
    if 10 * (collected - total) > total:
        raise RlhpError(
            f"learner.train_batch_size={wanted}: {envs} environments are stepped together, so a "
            f"batch has {collected} env steps, more than a tenth beyond it. Set "
            f"learner.train_batch_size={collected}, or lower rollout.num_envs_per_env_runner or "
            "rollout.num_env_runners."
        )


def runners_at_first(config: RunConfig) -> int:
    """Env runners that the run starts with; the driver is one where it has no others."""
    rollout = config.rollout
    return max(
        1, rollout.num_env_runners if rollout.min_env_runners is None else rollout.min_env_runners
    )


def check_passthrough(settings: dict[str, Any]) -> None:
    """One ValueError naming every key of `learner.rllib` that RLlib does not have or
    that is ours.
    """
    known = {name for name in vars(PreferencePPOConfig()) if not name.startswith("_")}
    problems = []
    for name in settings:
        if name in OURS:
            problems.append(f"learner.rllib.{name}: say it as {OURS[name]}, not twice")
        elif name in FORBIDDEN:
            problems.append(f"learner.rllib.{name}: cannot be changed, {FORBIDDEN[name]}")
        elif name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            problems.append(f"learner.rllib.{name}: PPOConfig of RLlib has no such setting{hint}")
    if problems:
        raise RlhpError("\n".join(problems))


def _pass_through(algorithm: PreferencePPOConfig, settings: dict[str, Any]) -> None:
    check_passthrough(settings)
    for name, value in settings.items():
        setattr(algorithm, name, value)


def _moments_connector(env: Any = None, spaces: Any = None, device: Any = None) -> RunningMoments:
    return RunningMoments()
