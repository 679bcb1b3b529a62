"""Environments by name: one of them, many stepped together, and what can be known
before the first step.

    env = make_env(EnvConfig(id="Hopper-v5", hide_termination=True))  # observations as they are
    envs = make_vector_env(config.env, num_envs=8, vectorize="auto")  # [8, O_flat], next-step reset
    facts = probe(config.env)  # spaces, episode limit, refusals

The order of wrappers is fixed: environment, guard, hidden termination, flat
observation, time limit. Nothing here imports torch or ray, so a labeler can draw with
it. Before a run starts, `few_steps` and `ends_by_itself` try an environment with random
actions: some steps, and, where it states no time limit, whole episodes.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit

from rlhp.config.schema import EnvConfig
from rlhp.envs.atari import AtariGame, AtariGames, game_of
from rlhp.envs.guard import EnvFailed, Guarded, GuardedVector, blamed, out_of_bounds
from rlhp.envs.mujoco_tasks import EndlessEpisode, HiddenTermination, known_task
from rlhp.envs.registry import bare_env, registered
from rlhp.envs.spaces import Spaces, describe
from rlhp.envs.states import CannotDraw, Pictured, sim_state, state_kind, way_to_draw
from rlhp.errors import RlhpError
from rlhp.types import Array

STEPS = 5
EPISODES = 3
LONGEST = 1000
"""Steps that an episode may take to end by itself."""
SECONDS = 10.0
"""So long may a slow simulator take for all of these episodes."""

Env = gym.Env[Any, Any]


def few_steps(env: Env) -> list[str]:
    """Reset, step, reset again; what the guard does not refuse and is odd all the same,
    each in one line.
    """
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
    """The warning that goes with an environment which states no time limit; ValueError
    where no end was seen.
    """
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
                f"{config.id} has no time limit, and an episode of random actions did not end "
                f"within {steps} steps, so one might never end. Set env.max_episode_steps to a "
                "number of steps (an episode that ends earlier by itself still does)."
            )
        lengths.append(steps)
    fewest, most = min(lengths), max(lengths)
    after = f"{most} steps each" if fewest == most else f"{fewest} to {most} steps"
    return (
        f"{config.id} states no time limit; {EPISODES} episodes of random actions ended by "
        f"themselves, after {after}, and one that goes on is cut after {limit:,}. Set "
        "env.max_episode_steps to cut it elsewhere"
    )


_log = logging.getLogger(__name__)

VecEnv = VectorEnv[Any, Any, Any]

_NEVER_ENDS_EARLY = (
    "Pendulum",
    "Reacher",
    "HalfCheetah",
    "Swimmer",
    "Pusher",
    "HumanoidStandup",
    "MovingDot",
)
"""Environments that no state terminates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvFacts:
    """What `probe` found out by building the environment once."""

    env_id: str
    spaces: Spaces
    episode_limit: int
    """Steps after which every episode is truncated."""
    limit_stated: bool
    """False where the environment ends its episodes itself, and the limit is ours, for
    those that go on.
    """
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
    """Return at which Gymnasium calls it solved; None where hidden termination changes
    the env reward.
    """
    warnings: tuple[str, ...] = ()
    """What works and may still not be meant, each in one line."""


UNSTATED_LIMIT = 10_000
"""Steps after which an episode is cut where nobody states a time limit."""
FASTEST = 240
"""Frames per second that a screen may show."""


class UnstatedLimit(TimeLimit[Any, Any]):
    """The time limit of an environment that ends its episodes itself and states none."""


def make_env(config: EnvConfig, *, render_mode: str | None = None) -> Env:
    """One environment with its end hidden (if asked for) and its time limit outermost;
    observations as they are.

    ValueError for an unknown id, a factory that fails, and hidden ends without any time
    limit.
    """
    return _build(config, render_mode=render_mode)


def make_vector_env(
    config: EnvConfig,
    *,
    num_envs: int,
    vectorize: Literal["auto", "sync", "native"],
    pictures: bool = False,
    who: str = "",
) -> VecEnv:
    """`num_envs` environments stepped together, one-dimensional observations [num_envs,
    O_flat].

    An environment that is done shows its last observation, and its reset on the
    following step, whose action is ignored and whose reward is zero
    (`AutoresetMode.NEXT_STEP`). `reset(seed=...)` takes an int or a list of them.
    `auto` is `native` where the environment has a vector implementation of its own that
    shows the same spaces and needs nothing of ours around each environment. With
    `pictures` the first of them keeps a small one of every step, as its state, and the
    others keep an empty one. Atari games are always stepped by their own vector
    implementation. `who` steps them: errors say so.
    """
    if game_of(config) is not None:
        return AtariGames(config, count=num_envs)
    if vectorize != "sync" and not pictures:
        native = _native(config, num_envs=num_envs, who=who)
        if not isinstance(native, str):
            return native
        if vectorize == "native":
            raise RlhpError(
                f"rollout.vectorize=native cannot be had: {native}. Set rollout.vectorize = auto."
            )
        _log.debug("stepping %s one by one: %s", config.id, native)
    each = [f"{who}, environment {index}".removeprefix(", ") for index in range(num_envs)]
    builds: list[Any] = [partial(_build, config, flat=True, who=name) for name in each]
    if pictures:
        builds = [
            partial(_pictured, config, draws=index == 0, who=name)
            for index, name in enumerate(each)
        ]
    try:
        return SyncVectorEnv(builds, autoreset_mode=AutoresetMode.NEXT_STEP)
    except AssertionError as error:  # which is how Gymnasium says it
        raise EnvFailed(
            f"env.id={config.id!r}: its spaces differ from one environment to the next: {error}"
        ) from error


def probe(config: EnvConfig) -> EnvFacts:
    """Build the environment, reset it and take a few steps, so that what cannot work is
    refused now.

    ValueError as from `make_env`, for spaces that are not supported, for whatever the
    environment raises or returns that its spaces do not say, and where its episodes
    have no limit and do not end.
    """
    env = _build(config, who="tried before the start")
    try:
        try:
            spaces = describe(env.observation_space, env.action_space)
        except RlhpError as error:
            raise RlhpError(f"env.id={config.id!r}: {error}") from error
        warnings = few_steps(env)
        if isinstance(env, UnstatedLimit):
            warnings.append(ends_by_itself(config, env, limit=UNSTATED_LIMIT))
        if (fps := env.metadata.get("render_fps")) is not None and _fps(fps) is None:
            warnings.append(
                f"{config.id} says render_fps={fps!r}, no number from 1 to {FASTEST}: clips play "
                "at 30"
            )
        task = known_task(config.id) if config.hide_termination else None
        never_ends = config.id.rpartition("-v")[0] in _NEVER_ENDS_EARLY
        with blamed(config, "its attributes"):
            kind, spec = state_kind(env), env.spec
            sim_state(env)
        return EnvFacts(
            env_id=config.id,
            spaces=spaces,
            episode_limit=int(env.get_wrapper_attr("_max_episode_steps")),
            limit_stated=not isinstance(env, UnstatedLimit),
            known_task=task is not None,
            variable_length_possible=not (config.hide_termination or never_ends),
            state_kind=kind,
            native_vector=_has_native(config),
            fps=playback_fps(config, env),
            reward_threshold=None
            if config.hide_termination or spec is None
            else spec.reward_threshold,
            warnings=tuple(warnings),
        )
    finally:
        env.close()  # type: ignore[no-untyped-call]


def playback_fps(config: EnvConfig, env: Env) -> int:
    """Steps per second at which people watch: the paper's for its tasks, else what the
    environment says, else 30.
    """
    task = known_task(config.id)
    return task.fps if task else _fps(env.metadata.get("render_fps")) or 30


def variable_length_warning(facts: EnvFacts) -> str | None:
    """What to tell a user whose episodes may end early, None where they cannot."""
    if not facts.variable_length_possible:
        return None
    before = (
        f"before their {facts.episode_limit} steps"
        if facts.limit_stated
        else "when their environment says so"
    )
    keys = "" if facts.limit_stated else "env.max_episode_steps to their length and "
    return (
        f"episodes of {facts.env_id} may end {before}, and an early end tells the policy about "
        f"the task even though the env reward is hidden. Set {keys}env.hide_termination = true so "
        "that all episodes are equally long; it changes nothing where no episode ends early."
    )


def needs_pictures(config: EnvConfig) -> bool:
    """Whether steps of this environment can be shown to people only by what was drawn
    when they were taken.
    """
    env = _build(config)
    try:
        with blamed(config, "its attributes"):
            return way_to_draw(env) == "picture"
    except CannotDraw:
        return False
    finally:
        env.close()  # type: ignore[no-untyped-call]


class FlatObservation(gym.ObservationWrapper[Any, Any, Any]):
    """Any supported observation as one row of numbers, Discrete ones one-hot: see
    `rlhp.envs.spaces.ObsSpec`.
    """

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._leaves = describe(env.observation_space, env.action_space).obs
        self.observation_space = self._leaves.flat_space()

    def observation(self, observation: Any) -> Array:
        """One observation -> [O_flat]."""
        return self._leaves.flatten_one(observation)


def _build(
    config: EnvConfig, *, render_mode: str | None = None, flat: bool = False, who: str = ""
) -> Env:
    if game_of(config) is not None:
        return AtariGame(config, render_mode=render_mode)
    raw, limit = bare_env(config, render_mode=render_mode)
    task = known_task(config.id) if config.hide_termination else None
    if config.termination_penalty and (task is not None or not config.hide_termination):
        why = (
            f"{task.name} pays a bonus of its own for staying up"
            if task
            else "env.hide_termination is false"
        )
        raise RlhpError(
            f"env.termination_penalty={config.termination_penalty} would do nothing: {why}. "
            "Remove it."
        )
    limit = config.max_episode_steps or (task.limit if task else limit)
    if limit is None and config.hide_termination:
        raise RlhpError(
            f"{config.id} has no time limit, and env.hide_termination hides every other end of an "
            "episode. Set env.max_episode_steps to a number of steps."
        )
    env: Env = Guarded(raw, config, who=who, keeps_info=task is not None)
    if task is not None:
        env = HiddenTermination(env, task=task)
    elif config.hide_termination:
        env = EndlessEpisode(env, termination_penalty=config.termination_penalty)
    if flat and not describe(env.observation_space, env.action_space).obs.plain:
        env = FlatObservation(env)
    return UnstatedLimit(env, UNSTATED_LIMIT) if limit is None else TimeLimit(env, limit)


def _pictured(config: EnvConfig, *, draws: bool, who: str) -> Env:
    return Pictured(
        _build(config, render_mode="rgb_array" if draws else None, flat=True, who=who), draws=draws
    )


def _fps(said: Any) -> int | None:
    """Frames per second as an environment says them; None for what is none."""
    fine = isinstance(said, int | float | np.number) and 1 <= said <= FASTEST
    return int(said) if fine else None


def _native(config: EnvConfig, *, num_envs: int, who: str = "") -> VecEnv | str:
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
    # mostly an optional package, or an argument that only the single one knows
    except Exception as error:
        return f"the vector implementation of {config.id} could not be made: {error}"
    mode = envs.metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        envs.close()
        return f"the vector implementation of {config.id} resets by {mode}, not on the next step"
    same_obs = describe(envs.single_observation_space, envs.single_action_space).obs == spaces.obs
    # with its bounds: actions are scaled to them
    if not same_obs or envs.single_action_space != single.action_space:
        envs.close()
        return (
            f"the vector implementation of {config.id} has other spaces than the single environment"
        )
    return GuardedVector(envs, config, who=who)


def _has_native(config: EnvConfig) -> bool:
    if game_of(config) is not None:
        return True
    native = _native(config, num_envs=1)
    if isinstance(native, str):
        return False
    native.close()
    return True
