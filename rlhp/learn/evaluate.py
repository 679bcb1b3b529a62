"""Plays a policy and reports its true return: the only number that says whether the
task was learned.

Used by evaluations in training, by `rlhp eval` and for the random baseline. It has its
own environments and its own seeds, and feeds nothing back.

One episode of a policy, kept whole: what a video of it is drawn from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns

from rlhp.config.schema import EnvConfig
from rlhp.envs.atari import AtariGames, game_of
from rlhp.envs.atari_replay import GameLog
from rlhp.envs.guard import RETRIES, EnvFailed
from rlhp.envs.make import make_vector_env, needs_pictures
from rlhp.envs.spaces import Spaces
from rlhp.envs.states import states_of
from rlhp.rollout.acting import as_seen, executed_actions
from rlhp.rollout.normalization import RunningMoments
from rlhp.types import Array, Segment

log = logging.getLogger(__name__)

Act = Callable[[Array], Array]
"""Raw flat obs [N, O] -> executed actions [N, *A]."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """True returns of whole episodes."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean true return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the true return over episodes."""
        return float(np.std(self.returns))


def evaluate(
    make_act: Callable[[Any], Act], env: EnvConfig, *, episodes: int, seed: int
) -> Evaluation:
    """Play `episodes` whole episodes, a fixed number per environment, so that short
    ones are not favored.

    Of Atari an episode is one game, and its return the game's score, as they are
    reported everywhere. Where the environment fails all is played again, `RETRIES`
    times at most.
    """
    for attempt in range(1, RETRIES + 1):
        try:
            return _evaluate(make_act, env, episodes=episodes, seed=seed)
        except EnvFailed as error:
            log.warning("played again, %d of %d: %s", attempt, RETRIES, error, exc_info=True)
    return _evaluate(make_act, env, episodes=episodes, seed=seed)


def _evaluate(
    make_act: Callable[[Any], Act], env: EnvConfig, *, episodes: int, seed: int
) -> Evaluation:
    count = min(episodes, 10)
    if game_of(env) is not None:
        env = env.model_copy(update={"hide_termination": False})
    vector: Any = make_vector_env(env, num_envs=count, vectorize="sync", who="evaluation")
    try:
        vector.action_space.seed(seed)
        act = make_act(vector)
        seeds = np.random.default_rng([seed, 11]).integers(2**31 - 1, size=count)
        obs, _ = vector.reset(seed=[int(s) for s in seeds])
        quota = np.array([episodes // count + (k < episodes % count) for k in range(count)])
        returns: list[list[float]] = [[] for _ in range(count)]
        lengths: list[list[int]] = [[] for _ in range(count)]
        total, steps, was_done = np.zeros(count), np.zeros(count, int), np.zeros(count, bool)
        while any(len(returns[k]) < quota[k] for k in range(count)):
            obs, reward, terminated, truncated, info = vector.step(act(np.asarray(obs)))
            total += np.where(
                was_done, 0.0, info["score"] if isinstance(vector, AtariGames) else reward
            )
            steps += ~was_done
            done = (terminated | truncated) & ~was_done
            for k in np.flatnonzero(done):
                if len(returns[k]) < quota[k]:
                    returns[k].append(float(total[k]))
                    lengths[k].append(int(steps[k]))
                total[k], steps[k] = 0.0, 0
            was_done = done
    finally:
        vector.close()
    return Evaluation(
        returns=tuple(value for per_env in returns for value in per_env),
        lengths=tuple(value for per_env in lengths for value in per_env),
    )


def random_act(vector: Any) -> Act:
    """Uniform actions: the baseline of every F."""
    return lambda obs: np.asarray(vector.action_space.sample())


def policy_act(
    module: Any, moments: RunningMoments | None, *, explore: bool, seed: int
) -> Callable[[Any], Act]:
    """An RLlib module with the observation statistics it was trained with (None: it saw
    them raw).
    """

    def make(vector: Any) -> Act:
        generator_state = torch.random.get_rng_state()
        torch.manual_seed(seed)
        own_state = torch.random.get_rng_state()
        torch.random.set_rng_state(generator_state)

        @torch.inference_mode()
        def act(obs: Array) -> Array:
            nonlocal own_state
            seen = as_seen(obs) if moments is None else moments.normalize(obs)
            out = module.forward_inference({Columns.OBS: torch.from_numpy(seen)})
            dist = module.get_inference_action_dist_cls().from_logits(
                out[Columns.ACTION_DIST_INPUTS]
            )
            if not explore:
                sampled = dist.to_deterministic().sample()
            else:  # evaluation must not move the training's random stream
                outer = torch.random.get_rng_state()
                torch.random.set_rng_state(own_state)
                sampled = dist.sample()
                own_state = torch.random.get_rng_state()
                torch.random.set_rng_state(outer)
            return executed_actions(sampled.numpy(), vector.single_action_space)

        return act

    return make


def play_episode(
    make_act: Callable[[Any], Act],
    env: EnvConfig,
    spaces: Spaces,
    *,
    steps: int,
    seed: int,
    name: str,
) -> Segment:
    """The first `steps` steps (or fewer, where the episode ends) as one segment; it
    carries no env reward.
    """
    vector: Any = make_vector_env(
        env, num_envs=1, vectorize="sync", pictures=needs_pictures(env), who="film"
    )
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
