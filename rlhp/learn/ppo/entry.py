"""PPO as `rlhp.learn.registry` knows it: what is checked before a run, how its learner
is built, and how a saved policy is played.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule

from rlhp.config.schema import RunConfig
from rlhp.envs.spaces import Spaces
from rlhp.learn.evaluate import policy_act
from rlhp.learn.interface import MakeAct
from rlhp.learn.ppo.algorithm import PreferencePPO
from rlhp.learn.ppo.rllib import (
    algorithm_config,
    check_actions,
    check_batch,
    check_passthrough,
    ppo_keys,
)
from rlhp.rollout.normalization import RunningMoments


class PPO:
    """`learner.algorithm: ppo`, an `rlhp.learn.interface.Algorithm`."""

    def check_spaces(self, config: RunConfig, spaces: Spaces) -> None:
        """RlhpError for actions that RLlib's policy cannot draw."""
        check_actions(config.env.id, spaces.action)

    def check_settings(self, config: RunConfig) -> None:
        """RlhpError for a wrong `learner.rllib`, or a batch that RLlib would refuse."""
        check_passthrough(ppo_keys(config).rllib)
        check_batch(config)

    def build(
        self, config: RunConfig, spaces: Spaces, *, action_space: gym.Space[Any], begun: int
    ) -> PreferencePPO:
        """RLlib's algorithm with our env runners and our learner."""
        settings = algorithm_config(config, spaces, action_space=action_space, resumed=begun)
        built: PreferencePPO = settings.build_algo()
        return built

    def load_policy(
        self,
        state: Mapping[str, Any],
        config: RunConfig,
        spaces: Spaces,
        *,
        action_space: gym.Space[Any],
        explore: bool,
        seed: int,
    ) -> MakeAct:
        """The module of a checkpoint, with the observation statistics it was trained
        with.
        """
        module, moments = loaded(state, config, spaces, action_space=action_space)
        return policy_act(module, moments, explore=explore, seed=seed)


def loaded(
    state: Mapping[str, Any], config: RunConfig, spaces: Spaces, *, action_space: gym.Space[Any]
) -> tuple[RLModule, RunningMoments | None]:
    """The module and its observation statistics (None where the run did not normalize)."""
    settings = algorithm_config(config, spaces, action_space=action_space)
    space = spaces.obs.flat_space()
    spec = settings.get_rl_module_spec(
        spaces={DEFAULT_MODULE_ID: (space, action_space)}, inference_only=True
    )
    spec.observation_space, spec.action_space = space, action_space
    module = spec.build()
    module.set_state({name: value.numpy() for name, value in state["module"].items()})
    if not settings.rlhp.normalize_obs:
        return module, None
    moments = RunningMoments()
    if state["moments"] is not None:
        known = {name: value.numpy() for name, value in state["moments"].items()}
        moments.set_state({"known": {"obs": {**known, "count": float(known["count"])}}})
    return module, moments
