"""RLlib's PPO as RLlib has it, set up like a run of ours: what the benchmarks compare
with.
"""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.tune.registry import register_env

from rlhp.config.schema import RunConfig
from rlhp.envs.make import make_env, probe
from rlhp.learn.ppo.rllib import algorithm_config, ppo_keys

SHARED = (
    "lr",
    "gamma",
    "lambda_",
    "train_batch_size_per_learner",
    "minibatch_size",
    "num_epochs",
    "clip_param",
    "vf_clip_param",
    "vf_loss_coeff",
    "entropy_coeff",
    "use_kl_loss",
    "kl_coeff",
    "kl_target",
    "grad_clip",
    "grad_clip_by",
    "num_learners",
    "num_gpus_per_learner",
    "num_env_runners",
    "num_envs_per_env_runner",
    "num_cpus_per_env_runner",
    "rollout_fragment_length",
    "batch_mode",
    "sample_timeout_s",
    "seed",
    "log_level",
    "_model_config",
)
"""What is copied from our config, by RLlib's names: networks, batches, epochs, runners,
environments.
"""


def stock_config(config: RunConfig) -> PPOConfig:
    """RLlib's PPO config for this run, its env runner and connectors untouched but for
    standardized observations.
    """
    facts = probe(config.env)
    env = make_env(config.env)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    env.close()  # type: ignore[no-untyped-call]
    ours = algorithm_config(config, facts.spaces, action_space=spaces["action_space"])
    environment = config.env
    register_env("stock-environment", lambda _: make_env(environment))
    stock = PPOConfig()
    stock.api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
    stock.environment("stock-environment", **spaces)
    for name in SHARED:
        setattr(stock, name, getattr(ours, name))
    if ppo_keys(config).normalize_obs:
        stock.env_runners(
            env_to_module_connector=lambda env=None, spaces=None, device=None: MeanStdFilter()
        )
    return stock


def stock_ppo(config: RunConfig) -> PPO:
    """The algorithm, built, with one thread and actions as far from each other as ours
    are at first.
    """
    torch.set_num_threads(1)
    algorithm = stock_config(config).build_algo()
    log_std = ppo_keys(config).log_std_init

    def begin(learner: Any) -> None:
        for name, parameter in learner.module[DEFAULT_MODULE_ID].named_parameters():
            if name.endswith("log_std"):
                parameter.data.fill_(log_std)

    algorithm.learner_group.foreach_learner(begin)
    algorithm.env_runner_group.sync_weights(
        from_worker_or_learner_group=algorithm.learner_group, inference_only=True
    )
    return algorithm
