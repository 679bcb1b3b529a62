"""The learner's loop over minibatches: the update that RLlib's own loop makes, and what
it leaves out.
"""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from torch import Tensor

from rlhp.config.schema import RunConfig
from rlhp.envs.make import probe
from rlhp.learn.ppo.learner import PPOLearner, minibatches
from rlhp.learn.ppo.rllib import algorithm_config, ppo_keys
from rlhp.rollout.runner import ColumnarEnvRunner
from tests.small_runs import action_space, small

ENVS: dict[str, dict[str, Any]] = {
    "a box": {},
    "choices": {"kwargs": {"discrete": True}},
    "several choices": {"id": "tests.environments:TwoWheels"},
    "pictures": {"id": "MovingDot-v0"},
}
TIMES = {"num_env_steps_sampled_lifetime": 0}


def pair(config: RunConfig) -> tuple[PPOLearner, PPOTorchLearner, list[Any]]:
    """Our learner and RLlib's with the same networks, and episodes to learn from."""
    settings = algorithm_config(config, probe(config.env).spaces, action_space=action_space(config))
    runner = ColumnarEnvRunner(config=settings, worker_index=0)
    episodes = runner.sample(num_timesteps=ppo_keys(config).train_batch_size)
    spaces = (settings.observation_space, settings.action_space)
    made = []
    for kind in (PPOLearner, PPOTorchLearner):
        torch.manual_seed(0)
        spec = settings.get_multi_rl_module_spec(spaces={DEFAULT_MODULE_ID: spaces})
        made.append(kind(config=settings, module_spec=spec))
        made[-1].build()
    ours, stock = made
    stock.module[DEFAULT_MODULE_ID].load_state_dict(ours.module[DEFAULT_MODULE_ID].state_dict())
    for learner in made:  # with Adam's own, a gradient of rounding errors alone makes a whole step
        learner.get_optimizer(DEFAULT_MODULE_ID).param_groups[0]["eps"] = 1e-5
    return ours, stock, episodes


def weights(learner: PPOTorchLearner) -> dict[str, Tensor]:
    return {
        name: value.detach().clone()
        for name, value in learner.module[DEFAULT_MODULE_ID].named_parameters()
    }


def memory(learner: PPOTorchLearner) -> list[Tensor]:
    """Adam's running mean of each gradient."""
    return [state["exp_avg"] for state in learner.get_optimizer(DEFAULT_MODULE_ID).state.values()]


def update(
    learner: PPOTorchLearner, episodes: list[Any], *, minibatch: int, epochs: int = 1
) -> Any:
    data = TrainingData(episodes=deepcopy(episodes))
    return learner.update(
        training_data=data, timesteps=TIMES, num_epochs=epochs, minibatch_size=minibatch
    )


PENALTIES = {
    "kl_coeff": 0.3,
    "kl_target": 1e-9,
    "vf_clip": 30.0,
    "entropy_coeff": 0.02,
    "grad_clip": 0.1,
}


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("learner", [{}, PENALTIES, {"grad_clip": None}])
def test_an_update_on_all_rows_at_once_is_that_of_rllib(env: str, learner: dict[str, Any]) -> None:
    config = small(labels={"source": "none"}, env=ENVS[env], learner={"lr": 1e-2, **learner})
    ours, stock, episodes = pair(config)
    before = weights(ours)
    rows = sum(len(episode) + 1 for episode in episodes)  # with the step that RLlib adds to each
    for _ in range(3):  # the optimizer's memory too
        mine, theirs = (update(each, episodes, minibatch=rows) for each in (ours, stock))
        for name in ("policy_loss", "vf_loss", "entropy", "mean_kl_loss"):
            said, expected = (
                float(each[DEFAULT_MODULE_ID][name].peek()) for each in (mine, theirs)
            )
            assert said == pytest.approx(expected, rel=1e-3, abs=1e-5), name
    for name, value in weights(stock).items():
        assert not torch.equal(value, before[name])
        torch.testing.assert_close(weights(ours)[name], value, rtol=1e-3, atol=1e-5)
    for mine, theirs in zip(memory(ours), memory(stock), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-7)


def test_every_epoch_goes_through_all_rows_in_another_order() -> None:
    rows = {"advantages": torch.arange(100.0), "obs": torch.arange(200).view(100, 2)}
    parts = list(minibatches(rows, size=32, epochs=3))
    assert [len(part["advantages"]) for part in parts] == [34, 33, 33] * 3
    for part in parts:
        np.testing.assert_array_equal(part["obs"][:, 0], 2 * part["advantages"])
    epochs = [torch.cat([part["advantages"] for part in parts[at : at + 3]]) for at in (0, 3, 6)]
    for epoch in epochs:
        assert not torch.equal(epoch, rows["advantages"])
        torch.testing.assert_close(epoch.sort().values, rows["advantages"])
    assert not torch.equal(epochs[0], epochs[1])
    assert len(list(minibatches(rows, size=500, epochs=2))) == 2, (
        "one that holds all rows, however few"
    )
    assert len(list(minibatches(rows, size=32, epochs=3, total=11))) == 11, (
        "as many as the other learners take"
    )


def test_a_gradient_that_is_not_finite_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    config = small(labels={"source": "none"})
    ours, _, episodes = pair(config)
    before = weights(ours)
    episodes[0].rewards.data[0] = np.nan
    with caplog.at_level(logging.WARNING):
        update(ours, episodes, minibatch=1000)
    assert "a gradient of the policy was not finite" in caplog.text
    for name, value in weights(ours).items():
        torch.testing.assert_close(value, before[name])
