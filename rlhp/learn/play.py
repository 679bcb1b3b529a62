"""One episode of a policy, kept whole: what a video of it is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rlhp.config import EnvConfig
from rlhp.learn.evaluate import Act
from rlhp.rollout.envs import make_vector_env, needs_pictures
from rlhp.rollout.replay import GameLog
from rlhp.rollout.states import states_of
from rlhp.spaces import Spaces
from rlhp.types import Array, Segment


def play_episode(
    make_act: Callable[[Any], Act], env: EnvConfig, spaces: Spaces, *, steps: int, seed: int, name: str
) -> Segment:
    """The first `steps` steps (or fewer, where the episode ends) as one segment; it carries no env reward."""
    vector: Any = make_vector_env(env, num_envs=1, vectorize="sync", pictures=needs_pictures(env), who="film")
    try:
        act = make_act(vector)
        kind, read = states_of(vector, draws_clips=True)
        obs, _ = vector.reset(seed=[seed])
        seen = [np.array(obs[0])]
        actions: list[Array] = []
        states: list[Array] = []
        ended = False
        while len(actions) < steps and not ended:
            if read is not None:
                states.append(read()[0])
            executed = act(np.asarray(obs))
            obs, _, terminated, truncated, _ = vector.step(executed)
            ended = bool(terminated[0] or truncated[0])
            actions.append(np.array(executed[0]))
            seen.append(np.array(obs[0]))
    finally:
        vector.close()
    state = np.stack(states) if states else None
    if kind == "replay" and state is not None:
        game = GameLog()
        game.add(state[:, 0], np.stack(actions))
        state = game.state(0, len(actions))
    return Segment(
        id=name,
        run=name,
        env_runner=0,
        episode=name,
        start=0,
        obs=spaces.obs.unflatten(np.stack(seen)),
        actions=np.stack(actions),
        env_reward=None,
        predicted_reward=None,
        reward_version=None,
        policy_version=0,
        env_steps=0,
        terminated=ended and bool(terminated[0]),
        truncated=ended and bool(truncated[0]),
        state=state,
        state_kind=kind,
    )
