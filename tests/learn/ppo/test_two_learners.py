"""Two learners that share a batch are one policy: equal to the last bit, update after
update.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from rlhp.envs.make import probe
from rlhp.learn.ppo.rllib import algorithm_config, ppo_keys
from rlhp.rollout.runner import ColumnarEnvRunner
from tests.small_runs import action_space, small

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # Ray Train, which starts the learners, on its own use of Ray Data
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
UPDATES = 20


def whole(learner: Any) -> dict[str, Any]:
    """Parameters, buffers and the optimizer's moments, as arrays."""
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    held = {name: value.numpy().copy() for name, value in module.state_dict().items()}
    steps = learner.get_optimizer(DEFAULT_MODULE_ID).state_dict()["state"]
    for number, moments in steps.items():
        held.update({f"{number}/{name}": value.numpy().copy() for name, value in moments.items()})
    held["kl"] = np.float64(learner.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID])
    return held


@pytest.mark.parametrize(
    ("env", "pixels"),
    [({}, "scaled"), ({"id": "MovingDot-v0"}, "standardized")],
    ids=["numbers", "pictures"],
)
def test_two_learners_stay_equal_to_the_last_bit(env: dict[str, Any], pixels: str) -> None:
    config = small(
        env={**env, "max_episode_steps": 20},
        labels={"source": "none"},
        learner={
            "num_learners": 2,
            "train_batch_size": 120,
            "minibatch_size": 30,
            "num_epochs": 2,
            "kl_coeff": 0.2,
            "pixels": pixels,
        },
    )
    settings = algorithm_config(config, probe(config.env).spaces, action_space=action_space(config))
    runner = ColumnarEnvRunner(config=settings, worker_index=0)
    spaces = (settings.observation_space, settings.action_space)
    group = settings.build_learner_group(spaces={DEFAULT_MODULE_ID: spaces})
    try:
        before, _ = (result.get() for result in group.foreach_learner(whole))
        for _ in range(UPDATES):
            group.update(
                episodes=runner.sample(num_timesteps=120),
                timesteps={"num_env_steps_sampled_lifetime": 0},
                num_epochs=ppo_keys(config).num_epochs,
                minibatch_size=ppo_keys(config).minibatch_size,
                shuffle_batch_per_epoch=True,
            )
            runner.set_state({"rl_module": group.get_weights()[DEFAULT_MODULE_ID]})
        first, second = (result.get() for result in group.foreach_learner(whole))
    finally:
        group.shutdown()
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    learned = [name for name in before if not np.array_equal(before[name], first[name])]
    assert any(name.startswith("vf") for name in learned), learned
    assert any(name.startswith("pi") for name in learned), learned
