"""A little world with a known linear reward, and modules of a user's own, for the tests
of fitting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlhp.config.schema import RewardConfig
from rlhp.envs.spaces import ActionSpec, Leaf, ObsSpec, Spaces
from rlhp.reward.fit import Fitter
from rlhp.types import Answer, Array, Preference, Segment

OBS, ACTION, STEPS = 3, 2, 8
SPACES = Spaces(
    obs=ObsSpec(leaves=(Leaf(path="", shape=(OBS,), dtype="<f8"),)),
    action=ActionSpec(shape=(ACTION,), dtype="<f4"),
)
REWARD = np.array([1.0, -2.0, 0.0, 0.5, 0.0])
"""Env reward per raw input: what the ensemble has to find out."""
SCALE = np.array([1.0, 0.1, 20.0])
"""Standard deviations of the observations, as different as those of a real task."""


def config(**changes: Any) -> RewardConfig:
    """A small ensemble that sees the action; what `auto` makes of it is in
    test_choice.py.
    """
    return RewardConfig.model_validate(
        {
            "hidden": (16, 16),
            "batch_size": 16,
            "reservoir": 600,
            "lr": 3e-3,
            "use_action": True,
            "members": 3,
        }
        | changes
    )


def transitions(rows: int, *, seed: int) -> tuple[Array, Array]:
    """Observations [rows, OBS] and actions [rows, ACTION]."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(rows, OBS)) * SCALE + 5 * SCALE
    return obs.astype(np.float32), rng.uniform(-1, 1, (rows, ACTION)).astype(np.float32)


def env_rewards(obs: Array, actions: Array) -> Array:
    """[rows] float64."""
    rewards: Array = np.concatenate([obs[:, :OBS] / SCALE, actions], axis=1) @ REWARD
    return rewards


def segment(number: int, *, length: int = STEPS) -> Segment:
    """The segment of this number."""
    obs, actions = transitions(length + 1, seed=1000 + number)
    return Segment(
        id=f"segment-{number}",
        run="run",
        env_runner=0,
        episode="episode",
        start=0,
        obs={"": obs.astype(np.float64)},
        actions=actions[:-1],
        env_reward=env_rewards(obs[:-1], actions[:-1]).astype(np.float32),
        predicted_reward=None,
        reward_version=None,
        policy_version=0,
        env_steps=0,
        terminated=False,
        truncated=False,
    )


def preference(
    number: int, *, answer: Answer | None = None, length: int = STEPS, labeler: str = "oracle"
) -> Preference:
    """The oracle's preference between segments 2n and 2n + 1, unless told otherwise."""
    first, second = segment(2 * number, length=length), segment(2 * number + 1, length=length)
    better = Answer.FIRST if first.true_return > second.true_return else Answer.SECOND
    return Preference(
        query=f"query-{number}",
        candidates=(first, second),
        answer=answer or better,
        labeler=labeler,
    )


def preferences(count: int, *, start: int = 0) -> list[Preference]:
    """The oracle's answers to this many queries."""
    return [preference(number) for number in range(start, start + count)]


def fitter(*, seed: int = 0, data: int = 60, **changes: Any) -> Fitter:
    """A fitter that has seen some transitions and preferences."""
    made = Fitter(config(**changes), spaces=SPACES, seed=seed)
    made.observe(*transitions(500, seed=7))
    made.add(preferences(data))
    return made


class Linear(nn.Module):
    """As small as a user's own module can be."""

    def __init__(self, obs_size: int, action_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(obs_size + action_size, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        rewards: Tensor = self.linear(self.dropout(torch.cat([obs, actions], 1)))
        return rewards.squeeze(1)


class TwoDimensional(Linear):
    """Forgets to drop the last axis."""

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        return super().forward(obs, actions)[:, None]


class Fussy(nn.Module):
    """Takes no sizes."""

    def __init__(self) -> None:
        super().__init__()


NOT_A_MODULE = dict
