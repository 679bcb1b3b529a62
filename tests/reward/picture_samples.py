"""Pictures with a bright side, preferences for those whose left is brighter, and a
module that reads them.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from rlhp.envs.spaces import ActionSpec, Leaf, ObsSpec, Spaces
from rlhp.types import Answer, Array, Preference, Segment

STACK, ACTIONS, STEPS = 2, 2, 4


def spaces(size: int) -> Spaces:
    """Two gray frames of this size, and two numbers as an action."""
    return Spaces(
        obs=ObsSpec(leaves=(Leaf(path="", shape=(STACK, size, size), dtype="|u1"),)),
        action=ActionSpec(shape=(ACTIONS,), dtype="<f4"),
    )


def pictures(rows: int, *, size: int, seed: int) -> Array:
    """[rows, STACK, size, size] uint8: noise, and a left side of some brightness."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 60, (rows, STACK, size, size), dtype=np.uint8)
    made[..., : size // 2] += rng.integers(0, 190, (rows, 1, 1, 1), dtype=np.uint8)
    return made


def segment(number: int, *, size: int) -> Segment:
    """The segment of this number; how bright its left side is, is its env reward."""
    obs = pictures(STEPS + 1, size=size, seed=1000 + number)
    bright = obs[:-1, :, :, : size // 2].mean((1, 2, 3)) / 255
    return Segment(
        id=f"segment-{number}",
        run="run",
        env_runner=0,
        episode="episode",
        start=0,
        obs={"": obs},
        actions=np.zeros((STEPS, ACTIONS), np.float32),
        env_reward=bright.astype(np.float32),
        predicted_reward=None,
        reward_version=None,
        policy_version=0,
        env_steps=0,
        terminated=False,
        truncated=False,
    )


def preferences(count: int, *, size: int) -> list[Preference]:
    """Those of a perfect oracle."""
    made = []
    for number in range(count):
        first, second = segment(2 * number, size=size), segment(2 * number + 1, size=size)
        answer = Answer.FIRST if first.true_return > second.true_return else Answer.SECOND
        made.append(
            Preference(
                query=f"query-{number}", candidates=(first, second), answer=answer, labeler="oracle"
            )
        )
    return made


class Brightness(nn.Module):
    """Its reward is how bright a picture is."""

    def __init__(self, obs_shape: tuple[int, int, int], action_size: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(1 + 0 * (obs_shape[0] + nn.Linear(1, 1).weight[0, 0].detach()))

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        return self.factor * obs.mean((1, 2, 3))
