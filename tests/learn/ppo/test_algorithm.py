"""The warm-up collects and counts, and learns nothing."""

from __future__ import annotations

import numpy as np
import pytest
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.core import DEFAULT_MODULE_ID

from rlhp.envs.make import probe
from rlhp.learn.ppo.algorithm import PreferencePPO
from rlhp.learn.ppo.rllib import algorithm_config
from tests.small_runs import Basket, action_space, priced, small

pytestmark = pytest.mark.usefixtures("ray_session")
LIFETIME = ("env_runners", "num_env_steps_sampled_lifetime")


class Started:
    """Two env runners, of which so many are up."""

    def __init__(self, healthy: int) -> None:
        self._worker_manager = self
        self._healthy = healthy

    def num_healthy_remote_workers(self) -> int:
        return self._healthy

    def num_remote_workers(self) -> int:
        return 2

    def actors(self) -> dict[int, object]:
        return {}


@pytest.mark.parametrize(
    ("healthy", "raised", "said"),
    [
        (0, TimeoutError, "no env runner came up; Ray's session directory"),
        (1, TimeoutError, "an env runner was lost while"),
        (2, IndexError, "list index out of range"),
    ],
)
def test_env_runners_that_are_not_there_are_a_loss_to_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, healthy: int, raised: type[Exception], said: str
) -> None:
    def setup(self: PreferencePPO, config: object) -> None:
        self.env_runner_group = Started(healthy)
        [][0]

    monkeypatch.setattr(PPO, "setup", setup)
    config = small(rollout={"num_env_runners": 1})
    settings = algorithm_config(config, probe(config.env).spaces, action_space=action_space(config))
    with pytest.raises(raised, match=said):
        settings.build_algo()


@pytest.mark.parametrize("runners", [0, 2])
def test_a_warm_up_collects_steps_and_statistics_and_leaves_the_policy_alone(runners: int) -> None:
    config = small(rollout={"num_env_runners": runners})
    spaces = probe(config.env).spaces
    built: PreferencePPO = algorithm_config(
        config, spaces, action_space=action_space(config)
    ).build_algo()
    if runners == 0:
        built.env_runner.segment_sink = Basket()
    policy = built.learner_group._learner.module[DEFAULT_MODULE_ID]
    before = {name: np.array(value) for name, value in policy.get_state().items()}
    steps = 0
    for _ in range(2):
        result = built.warm_up(100)
        assert 100 <= result.env_steps < 100 + 3 * max(1, runners)
        steps += result.env_steps
    assert built.metrics.peek(LIFETIME) == steps
    for name, value in policy.get_state().items():
        np.testing.assert_array_equal(value, before[name])
    (told, counted), *others = built.env_runner_group.foreach_env_runner(
        lambda runner: (runner.num_env_steps_sampled_lifetime, runner._moments.known["obs"].count)
    )
    assert (told, counted) == (steps, steps), (
        "every runner knows how far the whole run is, and sees by the same scale"
    )
    assert all(other == (steps, steps) for other in others)
    if runners == 0:
        built.env_runner.reward_source = priced(config, spaces)
        built.train()
        assert any(
            (np.array(value) != before[name]).any() for name, value in policy.get_state().items()
        )
    built.stop()
