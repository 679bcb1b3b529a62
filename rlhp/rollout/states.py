"""What the simulator of an environment is in, as numbers: enough to draw it later."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from rlhp.rollout.atari import AtariGames
from rlhp.rollout.drawable import Pictured
from rlhp.rollout.guard import Guarded
from rlhp.rollout.lander import is_lander, lander_state
from rlhp.rollout.returned import Unfit
from rlhp.types import Array

Env = gym.Env[Any, Any]


def state_kind(env: Env) -> str:
    """`hook` where the unwrapped environment has a method `rlhp_state`, `mujoco` for MuJoCo, `lander` for Gymnasium's
    LunarLander, `picture` where one is kept of each step, else `none`."""
    if isinstance(env, Pictured):
        return "picture"
    inner = env.unwrapped
    if callable(getattr(inner, "rlhp_state", None)):
        return "hook"
    if is_lander(inner):
        return "lander"
    data = getattr(inner, "data", None)
    return "mujoco" if all(isinstance(getattr(data, name, None), np.ndarray) for name in ("qpos", "qvel")) else "none"


def sim_state(env: Env) -> Array | None:
    """[S] float64 simulator state: what `rlhp_state` returns, MuJoCo's qpos, qvel and time; None for others."""
    return None if state_kind(env) == "none" else state_reader(env)()


def state_reader(env: Env) -> Callable[[], Array]:
    """Reads the simulator state of this environment, which has one, again and again."""
    inner: Any = env.unwrapped
    asked = guard_of(env)
    first: list[int] = []

    def hook() -> Array:
        with asked("rlhp_state"):
            state = np.array(inner.rlhp_state(), dtype=np.float64)
            if state.ndim != 1 or (first and first[0] != len(state)):
                size = f", always {first[0]} of them" if first else ""
                raise Unfit(f"returns a one-dimensional array of numbers{size}; got shape {state.shape}")
        first[:] = [len(state)]
        return state

    def mujoco() -> Array:
        data = inner.data
        return np.concatenate((data.qpos, data.qvel, (data.time,)))

    def lander() -> Array:
        return np.array(lander_state(inner), dtype=np.float64)

    if isinstance(env, Pictured):
        return env.picture
    return {"hook": hook, "lander": lander}.get(state_kind(env), mujoco)


def states_of(envs: VectorEnv[Any, Any, Any], *, draws_clips: bool) -> tuple[str, Callable[[], Array] | None]:
    """The kind of simulator states that these environments have and what reads them [N, S]; `none` and None for others.

    Of Atari games only people want any, and theirs is the number of frames before a game's first step, else 0: with the
    actions that is enough to play it again, see `rlhp.rollout.replay`.
    """
    if isinstance(envs, AtariGames):
        games = envs
        if not draws_clips or not games.can_replay:
            return "none", None
        return "replay", lambda: games.begun[:, None].astype(np.float64)
    singles = list(getattr(envs, "envs", ()))
    if not singles or state_kind(singles[0]) == "none":
        return "none", None
    readers = [state_reader(env) for env in singles]

    def read() -> Array:
        states = [each() for each in readers]
        if len({len(state) for state in states}) > 1:
            with guard_of(singles[0])("rlhp_state"):
                raise Unfit(f"returns as many numbers in each environment; got {[len(state) for state in states]}")
        return np.stack(states)

    return state_kind(singles[0]), read


def guard_of(env: Env) -> Callable[[str], AbstractContextManager[None]]:
    """What blames this environment for what it raises when it is asked for something; nobody, where it has no guard."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Guarded):
            return env.asked
        env = env.env
    return lambda call: nullcontext()
