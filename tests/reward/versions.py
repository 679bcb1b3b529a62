"""Reward versions that were never fitted, for whoever serves, stores or asks for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rlhp.reward.fit import Fitter
from rlhp.reward.versions import RewardWeights
from rlhp.types import Array
from tests.preferences.dataset_samples import PLAIN
from tests.reward.fit_samples import config

ENVS, ROWS, OBS = 3, 7, 3


def weights(version: int) -> RewardWeights:
    """The weights of this version, other ones for each."""
    fitter = Fitter(config(members=2, hidden=(8,)), spaces=PLAIN, seed=version)
    obs, actions = fragment(seed=version)
    fitter.observe(obs.reshape(-1, OBS), actions.reshape(-1, 2))
    return fitter.publish(version)


def diverged(version: int) -> RewardWeights:
    """Weights that are not finite any more."""
    good = weights(version)
    name, array = next((name, array) for name, array in good.state.items() if array.ndim == 3)
    return replace(good, state={**good.state, name: np.full_like(array, np.nan)})


def fragment(*, seed: int = 0, rows: int = ROWS) -> tuple[Array, Array]:
    """Observations [ENVS, rows, OBS] and actions [ENVS, rows, 2]."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(ENVS, rows, OBS)).astype(np.float32),
        rng.uniform(-1, 1, (ENVS, rows, 2)).astype(np.float32),
    )
