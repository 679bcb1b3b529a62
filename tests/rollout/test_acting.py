"""Actions are drawn as RLlib draws them, to the last bit, whichever way a policy takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from rlhp.rollout import acting
from rlhp.rollout.acting import drawing
from tests.small_runs import env_runner, small

COUNT = 5
ENVS = {
    "box": {"id": "tests.environments:Drift"},
    "discrete": {"id": "tests.environments:Drift", "kwargs": {"discrete": True}},
    "multi-discrete": {"id": "tests.environments:TwoWheels"},
}


def module_of(env: str) -> Any:
    """An untrained policy of the environment whose deviations differ from 1 and from
    each other.
    """
    module = env_runner(small(env=ENVS[env]))[0].module
    module.eval()
    if env == "box":
        with torch.no_grad():
            module.pi.log_std.copy_(torch.linspace(-1.3, 0.2, len(module.pi.log_std)))
    return module


def observations(module: Any) -> torch.Tensor:
    """Rows of normal numbers."""
    size = module.observation_space.shape[0]
    return torch.from_numpy(np.random.default_rng(0).normal(size=(COUNT, size)).astype(np.float32))


def by_rllib(module: Any, obs: torch.Tensor, *, explore: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Distribution inputs and actions by RLlib's public methods."""
    with torch.no_grad():
        ask = module.forward_exploration if explore else module.forward_inference
        inputs = ask({Columns.OBS: obs})[Columns.ACTION_DIST_INPUTS]
        dist = module.get_exploration_action_dist_cls().from_logits(inputs)
        return inputs, (dist if explore else dist.to_deterministic()).sample()


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("env", ENVS)
def test_draws_are_those_of_rllib(env: str, explore: bool) -> None:
    module = module_of(env)
    obs = observations(module)
    draw = drawing(module, count=COUNT, explore=explore)
    for _ in range(3):
        state = torch.get_rng_state()
        inputs, actions = draw(obs)
        torch.set_rng_state(state)
        expected_inputs, expected_actions = by_rllib(module, obs, explore=explore)
        assert torch.equal(inputs, expected_inputs)
        assert torch.equal(actions, expected_actions)


def test_a_deviation_out_of_bounds_is_clipped_as_rllib_does() -> None:
    module = module_of("box")
    assert module.pi.clip_log_std
    with torch.no_grad():
        module.pi.log_std.fill_(-1e3)
    obs = observations(module)
    inputs, _ = drawing(module, count=COUNT, explore=True)(obs)
    assert torch.equal(inputs, by_rllib(module, obs, explore=True)[0])
    assert inputs.min() > -1e3


def test_only_a_plain_gaussian_policy_takes_the_short_way() -> None:
    assert acting._plain_layers(module_of("box")) is not None
    assert acting._plain_layers(module_of("discrete")) is None


def test_new_weights_are_seen_by_the_next_drawing() -> None:
    module = module_of("box")
    obs = observations(module)
    before, _ = drawing(module, count=COUNT, explore=True)(obs)
    module.set_state({name: value + 0.1 for name, value in module.get_state().items()})
    after, _ = drawing(module, count=COUNT, explore=True)(obs)
    assert torch.equal(after, by_rllib(module, obs, explore=True)[0])
    assert not torch.equal(after, before)
