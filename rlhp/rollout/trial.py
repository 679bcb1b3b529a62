"""An environment tried before the start: a few steps of random actions, and, where it must be known, whole episodes."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym

from rlhp.config import EnvConfig
from rlhp.errors import RlhpError
from rlhp.rollout.returned import out_of_bounds

STEPS = 5
EPISODES = 3
LONGEST = 1000
"""Steps that an episode may take to end by itself."""
SECONDS = 10.0
"""So long may a slow simulator take for all of these episodes."""

Env = gym.Env[Any, Any]


def few_steps(env: Env) -> list[str]:
    """Reset, step, reset again; what the guard does not refuse and is odd all the same, each in one line."""
    seen = [env.reset(seed=0)[0]]
    env.action_space.seed(0)
    for _ in range(STEPS):
        obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append(obs)
        if terminated or truncated:
            seen.append(env.reset()[0])
    seen.append(env.reset()[0])
    outside = next(filter(None, (out_of_bounds(env.observation_space, obs) for obs in seen)), None)
    if outside is None:
        return []
    return [f"{outside}: correct observation_space of the environment, unless nobody relies on it"]


def ends_by_itself(config: EnvConfig, env: Env, *, limit: int) -> str:
    """The warning that goes with an environment which states no time limit; ValueError where no end was seen."""
    lengths: list[int] = []
    deadline = time.monotonic() + SECONDS
    for _ in range(EPISODES):
        env.reset()
        steps, over = 0, False
        while not over and steps < LONGEST and time.monotonic() < deadline:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            steps, over = steps + 1, terminated or truncated
        if not over:
            raise RlhpError(
                f"{config.id} has no time limit, and an episode of random actions did not end within {steps} steps, so "
                "one might never end. Set env.max_episode_steps to a number of steps (an episode that ends earlier by "
                "itself still does)."
            )
        lengths.append(steps)
    fewest, most = min(lengths), max(lengths)
    after = f"{most} steps each" if fewest == most else f"{fewest} to {most} steps"
    return (
        f"{config.id} states no time limit; {EPISODES} episodes of random actions ended by themselves, after "
        f"{after}, and one that goes on is cut after {limit:,}. Set "
        "env.max_episode_steps to cut it elsewhere"
    )
