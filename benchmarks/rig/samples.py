"""Segments and preferences of HalfCheetah's size, of random numbers: the same ones in
every process.
"""

from __future__ import annotations

import numpy as np

from rlhp.envs.spaces import ActionSpec, Leaf, ObsSpec, Spaces
from rlhp.types import Answer, Preference, Segment, segment_id

OBS, ACTION, STATE, STEPS = 17, 6, 19, 30
SPACES = Spaces(
    obs=ObsSpec(leaves=(Leaf(path="", shape=(OBS,), dtype="<f8"),)),
    action=ActionSpec(shape=(ACTION,), dtype="<f4"),
)


def segment(number: int) -> Segment:
    """The segment of this number, with a simulator state, as an env runner cuts it."""
    draws = np.random.default_rng(number)
    return Segment(
        id=segment_id(run="r", env_runner=0, episode="e", start=number, length=STEPS),
        run="r",
        env_runner=0,
        episode="e",
        start=number,
        obs={"": draws.normal(size=(STEPS + 1, OBS))},
        actions=draws.uniform(-1, 1, (STEPS, ACTION)).astype(np.float32),
        env_reward=draws.normal(size=STEPS).astype(np.float32),
        predicted_reward=None,
        reward_version=None,
        policy_version=0,
        env_steps=0,
        terminated=False,
        truncated=False,
        state=draws.normal(size=(STEPS, STATE)),
        state_kind="mujoco",
    )


def preference(number: int) -> Preference:
    """The oracle's answer about segments 2n and 2n + 1."""
    first, second = segment(2 * number), segment(2 * number + 1)
    answer = Answer.FIRST if first.true_return > second.true_return else Answer.SECOND
    return Preference(
        query=f"q{number}", candidates=(first, second), answer=answer, labeler="oracle"
    )
