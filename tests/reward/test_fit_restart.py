"""A fitter that was interrupted goes on as if it had not been, and a seed repeats it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from rlhp.reward.fit import Fitter
from rlhp.reward.versions import RewardWeights
from tests.reward.fit_samples import SPACES, config, fitter, preferences, transitions

HERE = "tests.reward.fit_samples"


def state(weights: RewardWeights) -> dict[str, Any]:
    return {**weights.state, "member_mean": weights.member_mean, "member_std": weights.member_std}


def assert_same(one: RewardWeights, other: RewardWeights) -> None:
    for name, array in state(one).items():
        np.testing.assert_array_equal(array, state(other)[name], err_msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.3, "optimizer": "rmsprop"},
        {"bootstrap": False, "adam_beta1": 0.0},
        {"module": f"{HERE}:Linear", "module_kwargs": {"dropout": 0.3}},
    ],
)
def test_a_restart_goes_on_bit_for_bit(changes: dict[str, Any]) -> None:
    whole = fitter(**changes)
    whole.pretrain(4)
    whole.publish(1)
    whole.train(37)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)

    restarted = Fitter(config(**changes), spaces=SPACES, seed=0)
    restarted.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    restarted.add(preferences(60))
    for made in (whole, restarted):
        made.add(preferences(10, start=60))
        made.train(400)
        made.observe(*transitions(50, seed=11))
    assert whole.report() == restarted.report()
    assert_same(whole.publish(2), restarted.publish(2))
    for made in (whole, restarted):
        made.train(100)
    assert_same(whole.publish(3), restarted.publish(3))


def test_a_saved_state_does_not_move_on_with_its_fitter() -> None:
    made = fitter()
    made.train(160)
    saved = made.state_dict()
    made.train(160)
    ahead = made.publish(1)
    again = fitter()
    again.load_state_dict(saved)
    again.train(160)
    assert_same(again.publish(1), ahead)


def test_the_state_of_other_networks_is_refused() -> None:
    with pytest.raises(
        ValueError, match="the saved reward trainer has other networks than this config"
    ) as caught:
        fitter(hidden=(8,)).load_state_dict(fitter().state_dict())
    assert "\n" not in str(caught.value)


def test_a_seed_decides_everything_and_the_global_generators_nothing() -> None:
    reference = fitter(dropout=0.2)
    torch.manual_seed(99)
    np.random.seed(99)
    before = torch.get_rng_state()
    other = fitter(dropout=0.2)
    assert reference.pretrain(3) == other.pretrain(3)
    assert_same(reference.publish(1), other.publish(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.array_equal(
        fitter(seed=1).publish(1).state["weights.0"], reference.publish(1).state["weights.0"]
    )
