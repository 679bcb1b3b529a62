"""A fragment: what one env runner collected in one go, as columns; and the episodes
made of it.

Shapes: N environments, T rows, O flat observation, A action, D action-distribution
inputs.

Rows where `valid` is False are resets (the step after an episode's end), which are
neither labeled, counted nor learned from. Env rewards live in the fragment for metrics
and synthetic teachers only: `build_episodes` never sees them in the preference arm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from rlhp.errors import RlhpError
from rlhp.frames import FramePickle
from rlhp.types import Array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fragment:
    """T rows of N environments, env by env, so that one env's steps are contiguous."""

    obs: Array
    """[N, T+1, *O] raw, flat; of stacked pictures a view of their frames."""
    policy_obs: Array
    """[N, T+1, *O] as the policy saw them: float32, or the same pictures."""
    sampled: Array
    """[N, T, *A] as the policy drew them (log-probabilities belong to these)."""
    executed: Array
    """[N, T, *A] as the environment got them."""
    logp: Array
    """[N, T]"""
    dist_inputs: Array
    """[N, T, D]"""
    env_reward: Array
    """[N, T] float32; NaN on reset rows."""
    terminated: Array
    """[N, T] bool"""
    truncated: Array
    """[N, T] bool"""
    valid: Array
    """[N, T] bool, False on reset rows."""
    state: Array | None = None
    """[N, T, S] simulator state before each action."""
    score: Array | None = None
    """[N, T] what counts as the true return, where the environment tells that apart
    from its reward.
    """

    def __post_init__(self) -> None:
        if not np.isfinite(self.dist_inputs).all():
            shown = (
                "observations that are not finite"
                if not np.isfinite(self.obs).all()
                else "finite observations"
            )
            raise RlhpError(
                f"the policy's outputs have to be finite and are not, after {shown}; let the "
                "environment check what it shows, or lower learner.lr"
            )

    @property
    def steps(self) -> int:
        """Real environment steps."""
        return int(self.valid.sum())


class Observations(InfiniteLookbackBuffer):  # type: ignore[misc]  # RLlib is untyped
    """RLlib's buffer, which on its way to the learner holds each frame of stacked
    pictures once.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, ({**self.__dict__, "data": FramePickle(self.data)},)


def _arrived(state: dict[str, Any]) -> InfiniteLookbackBuffer:
    buffer = InfiniteLookbackBuffer()
    buffer.__dict__.update(state)
    return buffer


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Consecutive valid rows of one environment that belong to one episode."""

    env: int
    first: int
    """First row."""
    stop: int
    """One past the last row."""
    done: bool
    """The episode ended with the last row."""


def pieces(fragment: Fragment) -> Iterator[Piece]:
    """The fragment cut at episode ends, env by env, in time order."""
    done = fragment.terminated | fragment.truncated
    for env in range(len(done)):
        first = 0
        edges = np.flatnonzero(done[env] | ~fragment.valid[env])
        for row in edges:
            if not fragment.valid[env, row]:
                if row > first:
                    yield Piece(env=env, first=first, stop=int(row), done=False)
                first = int(row) + 1
            elif done[env, row]:
                yield Piece(env=env, first=first, stop=int(row) + 1, done=True)
                first = int(row) + 1
        if first < done.shape[1]:
            yield Piece(env=env, first=first, stop=done.shape[1], done=False)


def build_episode(
    fragment: Fragment, piece: Piece, *, rewards: Array, episode_id: str, t_started: int
) -> SingleAgentEpisode:
    """One RLlib episode chunk. `rewards` [N, T] are the ones to learn from, finite on
    every valid row.
    """
    rows = slice(piece.first, piece.stop)
    env = piece.env
    values = rewards[env, rows]
    assert np.isfinite(values).all(), (
        f"unlabeled steps in episode {episode_id}: rewards must be finite before learning"
    )
    length = piece.stop - piece.first
    extra = {
        Columns.ACTION_LOGP: InfiniteLookbackBuffer(fragment.logp[env, rows]),
        Columns.ACTION_DIST_INPUTS: InfiniteLookbackBuffer(fragment.dist_inputs[env, rows]),
    }
    last = piece.stop - 1
    return SingleAgentEpisode(
        id_=episode_id,
        observations=Observations(fragment.policy_obs[env, piece.first : piece.stop + 1]),
        infos=InfiniteLookbackBuffer([{}] * (length + 1)),
        actions=InfiniteLookbackBuffer(fragment.sampled[env, rows]),
        rewards=InfiniteLookbackBuffer(values),
        extra_model_outputs=extra,
        terminated=bool(fragment.terminated[env, last]),
        truncated=bool(fragment.truncated[env, last]),
        t_started=t_started,
        len_lookback_buffer=0,
    )
