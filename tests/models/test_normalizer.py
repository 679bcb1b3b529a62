"""What the reward networks see, and the reservoir of recent transitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhp.models.normalizer import InputNormalizer, Moments, Reservoir
from tests.reward.fit_samples import ACTION, SPACES, transitions


def test_moments_of_pieces_are_those_of_the_whole() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 4)) * [1, 1e3, 1e-3, 1] + [0, 1e6, 5, -3]
    moments = Moments(4)
    for piece in (rows[:1], rows[1:40], rows[40:40], rows[40:]):
        moments.add(piece)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.std, rows.std(0), rtol=1e-9)


def test_a_feature_that_never_moved_keeps_its_own_scale() -> None:
    moments = Moments(1)
    moments.add(np.full((5, 1), 3.0))
    assert moments.std.tolist() == [1.0]


def test_inputs_are_standardized_and_observations_clipped() -> None:
    normalizer = InputNormalizer(obs_size=2, action_size=1)
    normalizer.set(np.array([1.0, 0.0, 10.0]), np.array([2.0, 0.1, 2.0]))
    seen = normalizer(torch.tensor([[3.0, 5.0, 50.0], [1.0, -5.0, -50.0]]))
    assert seen.tolist() == [[1.0, 10.0, 20.0], [0.0, -10.0, -30.0]]


def test_the_reservoir_keeps_the_newest() -> None:
    obs, actions = transitions(250, seed=0)
    reservoir = Reservoir(100, obs=SPACES.obs, action_size=ACTION)
    for start in range(0, 250, 30):
        reservoir.add(obs[start : start + 30], actions[start : start + 30])
    kept_obs, kept_actions = reservoir.rows()
    np.testing.assert_array_equal(kept_obs, obs[150:])
    np.testing.assert_array_equal(kept_actions, actions[150:])
    assert reservoir.moments.count == 250


def test_the_reservoir_refuses_what_is_not_finite() -> None:
    obs, actions = transitions(3, seed=0)
    obs[1, 0] = np.nan
    with pytest.raises(ValueError, match="observations and actions must be finite"):
        Reservoir(10, obs=SPACES.obs, action_size=ACTION).add(obs, actions)


def test_the_reservoir_refuses_other_shapes() -> None:
    obs, actions = transitions(3, seed=0)
    with pytest.raises(
        ValueError,
        match=r"observations \[N, 3\] and encoded actions \[N, 2\]; got \(3, 3\) and \(2, 2\)",
    ):
        Reservoir(10, obs=SPACES.obs, action_size=ACTION).add(obs, actions[:2])
