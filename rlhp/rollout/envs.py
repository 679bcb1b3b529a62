"""Environments by name: one of them, many stepped together, and what can be known before the first step.

    env = make_env(EnvConfig(id="Hopper-v5", hide_termination=True))       # observations as the env gives them
    envs = make_vector_env(config.env, num_envs=8, vectorize="auto")       # [8, O_flat], reset on the next step
    facts = probe(config.env)                                              # spaces, episode limit, refusals

The order of wrappers is fixed: environment, hidden termination, flat observation, time limit. Nothing
here imports torch or ray, so a labeler can draw with it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers import TimeLimit

from rlhp.config import EnvConfig
from rlhp.errors import RlhpError
from rlhp.rollout.atari import AtariGame, AtariGames, game_of
from rlhp.rollout.drawable import CannotDraw, Pictured, way_to_draw
from rlhp.rollout.lookup import bare_env, registered
from rlhp.rollout.states import state_kind
from rlhp.rollout.tasks import EndlessEpisode, HiddenTermination, known_task
from rlhp.spaces import Spaces, describe
from rlhp.types import Array

_log = logging.getLogger(__name__)

Env = gym.Env[Any, Any]
VecEnv = VectorEnv[Any, Any, Any]

_NEVER_ENDS_EARLY = ("Pendulum", "Reacher", "HalfCheetah", "Swimmer", "Pusher", "HumanoidStandup", "MovingDot")
"""Environments that no state terminates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvFacts:
    """What `probe` found out by building the environment once."""

    env_id: str
    spaces: Spaces
    episode_limit: int
    """Steps after which every episode is truncated."""
    known_task: bool
    """One of the paper's MuJoCo tasks, with its bonus instead of termination."""
    variable_length_possible: bool
    """True unless early ends are hidden, or known not to happen."""
    state_kind: str
    """`mujoco`, `hook` or `none`: see `state_kind`."""
    native_vector: bool
    """Whether `vectorize="auto"` uses the environment's own vector implementation."""
    fps: int
    """Steps per second of playback for people."""
    reward_threshold: float | None
    """Return at which Gymnasium calls it solved; None where hidden termination changes the env reward."""


def make_env(config: EnvConfig, *, render_mode: str | None = None) -> Env:
    """One environment with its end hidden (if asked for) and its time limit outermost; observations as they are.

    ValueError for an unknown id, a factory that fails, and an environment without any time limit.
    """
    return _build(config, render_mode=render_mode)


def make_vector_env(
    config: EnvConfig, *, num_envs: int, vectorize: Literal["auto", "sync", "native"], pictures: bool = False
) -> VecEnv:
    """`num_envs` environments stepped together, one-dimensional observations [num_envs, O_flat].

    An environment that is done shows its last observation, and its reset on the following step, whose
    action is ignored and whose reward is zero (`AutoresetMode.NEXT_STEP`). `reset(seed=...)` takes an
    int or a list of them. `auto` is `native` where the environment has a vector implementation of its
    own that shows the same spaces and needs nothing of ours around each environment. With `pictures` the
    first of them keeps a small one of every step, as its state, and the others keep an empty one. Atari games are
    always stepped by their own vector implementation.
    """
    if game_of(config) is not None:
        return AtariGames(config, count=num_envs)
    if vectorize != "sync" and not pictures:
        native = _native(config, num_envs=num_envs)
        if not isinstance(native, str):
            return native
        if vectorize == "native":
            raise RlhpError(f"rollout.vectorize=native cannot be had: {native}. Set rollout.vectorize = auto.")
        _log.debug("stepping %s one by one: %s", config.id, native)
    builds: list[Any] = [partial(_build, config, flat=True)] * num_envs
    if pictures:
        builds = [partial(_pictured, config, draws=index == 0) for index in range(num_envs)]
    return SyncVectorEnv(builds, autoreset_mode=AutoresetMode.NEXT_STEP)


def probe(config: EnvConfig) -> EnvFacts:
    """Build the environment, reset it and take one step, so that what cannot work is refused now.

    ValueError as from `make_env`, for spaces that are not supported, and for a failing first step.
    """
    env = _build(config, check=True)
    try:
        spaces = describe(env.observation_space, env.action_space)
        _first_step(config, env)
        task = known_task(config.id) if config.hide_termination else None
        limit = env.get_wrapper_attr("_max_episode_steps")
        never_ends = config.id.rpartition("-v")[0] in _NEVER_ENDS_EARLY
        return EnvFacts(
            env_id=config.id,
            spaces=spaces,
            episode_limit=int(limit),
            known_task=task is not None,
            variable_length_possible=not (config.hide_termination or never_ends),
            state_kind=state_kind(env),
            native_vector=_has_native(config),
            fps=playback_fps(config, env),
            reward_threshold=None if config.hide_termination or env.spec is None else env.spec.reward_threshold,
        )
    finally:
        env.close()  # type: ignore[no-untyped-call]


def playback_fps(config: EnvConfig, env: Env) -> int:
    """Steps per second at which people watch: the paper's for its tasks, else what the environment says, else 30."""
    task = known_task(config.id)
    return task.fps if task else int(env.metadata.get("render_fps") or 30)


def variable_length_warning(facts: EnvFacts) -> str | None:
    """What to tell a user whose episodes may end early, None where they cannot."""
    if not facts.variable_length_possible:
        return None
    return (
        f"episodes of {facts.env_id} may end before their {facts.episode_limit} steps, and an early end tells the "
        "policy about the task even though the env reward is hidden. Set env.hide_termination = true so that all "
        "episodes are equally long; it changes nothing where no episode ends early."
    )


def needs_pictures(config: EnvConfig) -> bool:
    """Whether steps of this environment can be shown to people only by what was drawn when they were taken."""
    env = _build(config)
    try:
        return way_to_draw(env) == "picture"
    except CannotDraw:
        return False
    finally:
        env.close()  # type: ignore[no-untyped-call]


class FlatObservation(gym.ObservationWrapper[Any, Any, Any]):
    """Any supported observation as one row of numbers, Discrete ones one-hot: see `rlhp.spaces.ObsSpec`."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._leaves = describe(env.observation_space, env.action_space).obs
        self.observation_space = self._leaves.flat_space()

    def observation(self, observation: Any) -> Array:
        """One observation -> [O_flat]."""
        return self._leaves.flatten_one(observation)


class _AnySeed(VectorWrapper):
    """A native vector environment has one generator, so of a list of seeds it takes the first."""

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        first = seed if seed is None or isinstance(seed, int) else seed[0]
        return self.env.reset(seed=None if first is None else int(first), options=options)


def _build(config: EnvConfig, *, render_mode: str | None = None, flat: bool = False, check: bool = False) -> Env:
    if game_of(config) is not None:
        return AtariGame(config, render_mode=render_mode)
    raw, limit = bare_env(config, render_mode=render_mode, check=check)
    task = known_task(config.id) if config.hide_termination else None
    if config.termination_penalty and (task is not None or not config.hide_termination):
        why = f"{task.name} pays a bonus of its own for staying up" if task else "env.hide_termination is false"
        raise RlhpError(f"env.termination_penalty={config.termination_penalty} would do nothing: {why}. Remove it.")
    limit = config.max_episode_steps or (task.limit if task else limit)
    if limit is None:
        raise RlhpError(
            f"{config.id} has no time limit, so an episode might never end. Set env.max_episode_steps to a number "
            "of steps (an episode that ends earlier by itself still does)."
        )
    env = raw
    if task is not None:
        env = HiddenTermination(env, task=task)
    elif config.hide_termination:
        env = EndlessEpisode(env, termination_penalty=config.termination_penalty)
    if flat and not describe(env.observation_space, env.action_space).obs.plain:
        env = FlatObservation(env)
    return TimeLimit(env, max_episode_steps=limit)


def _pictured(config: EnvConfig, *, draws: bool) -> Env:
    return Pictured(_build(config, render_mode="rgb_array" if draws else None, flat=True), draws=draws)


def _first_step(config: EnvConfig, env: Env) -> None:
    try:
        env.reset(seed=0)
        env.action_space.seed(0)
        env.step(env.action_space.sample())
    except Exception as error:
        raise RlhpError(
            f"env.id={config.id!r} failed on its first step: {type(error).__name__}: {error}. "
            "gymnasium.utils.env_checker.check_env tells what an environment has to fulfil."
        ) from error


def _native(config: EnvConfig, *, num_envs: int) -> VecEnv | str:
    """The environment's own vector implementation, or why it cannot be used."""
    if config.hide_termination:
        return "env.hide_termination needs a wrapper around each environment"
    spec = registered(config.id)
    if spec is None or spec.vector_entry_point is None:
        return f"{config.id} has no vector implementation of its own"
    single = _build(config)
    single.close()  # type: ignore[no-untyped-call]
    spaces = describe(single.observation_space, single.action_space)
    if not spaces.obs.plain:
        return f"observations of {config.id} are flattened by a wrapper around each environment"
    kwargs = dict(config.kwargs)
    if config.max_episode_steps is not None:
        kwargs["max_episode_steps"] = config.max_episode_steps
    try:
        envs = gym.make_vec(spec, num_envs, vectorization_mode="vector_entry_point", **kwargs)
    except Exception as error:  # mostly an optional package, or an argument that only the single one knows
        return f"the vector implementation of {config.id} could not be made: {error}"
    mode = envs.metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        envs.close()
        return f"the vector implementation of {config.id} resets by {mode}, not on the next step"
    same_obs = describe(envs.single_observation_space, envs.single_action_space).obs == spaces.obs
    if not same_obs or envs.single_action_space != single.action_space:  # with its bounds: actions are scaled to them
        envs.close()
        return f"the vector implementation of {config.id} has other spaces than the single environment"
    return _AnySeed(envs)


def _has_native(config: EnvConfig) -> bool:
    if game_of(config) is not None:
        return True
    native = _native(config, num_envs=1)
    if isinstance(native, str):
        return False
    native.close()
    return True
