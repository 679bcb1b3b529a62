"""Fragments are cut into pieces at resets and ends, and become episodes that hold
nothing but what is learned from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.core.columns import Columns

from rlhp.rollout.fragment import Fragment, Piece, build_episode, pieces


def fragment(
    ends: list[list[int]], *, resets: list[bool] | None = None, truncates: bool = False
) -> Fragment:
    """N environments with 1 where an episode ends; the row after an end is its reset.

    `resets` says whose first row is one, because an episode ended with the fragment
    before.
    """
    done = np.array(ends, bool)
    envs, rows = done.shape
    valid = np.ones((envs, rows), bool)
    valid[:, 1:] = ~done[:, :-1]
    if resets is not None:
        valid[:, 0] = ~np.array(resets)
    done &= valid
    numbers = np.arange(envs * rows, dtype=np.float32).reshape(envs, rows)
    wide = np.arange(envs * (rows + 1), dtype=np.float32).reshape(envs, rows + 1)
    return Fragment(
        obs=wide[..., None],
        policy_obs=wide[..., None] / 10,
        sampled=numbers[..., None] + 0.5,
        executed=numbers[..., None],
        logp=-numbers,
        dist_inputs=np.stack([numbers, numbers], axis=-1),
        env_reward=np.where(valid, numbers, np.float32("nan")),
        terminated=done & (not truncates),
        truncated=done & truncates,
        valid=valid,
        state=None,
    )


def by_hand(cut: Fragment) -> list[tuple[int, tuple[int, ...], bool]]:
    """(env, rows, done) of every piece, one row at a time."""
    found = []
    for env in range(len(cut.valid)):
        rows: list[int] = []
        for row in range(cut.valid.shape[1]):
            if not cut.valid[env, row]:
                continue
            rows.append(row)
            if cut.terminated[env, row] or cut.truncated[env, row]:
                found.append((env, tuple(rows), True))
                rows = []
        if rows:
            found.append((env, tuple(rows), False))
    return found


def test_a_fragment_without_an_end_is_one_piece_per_environment() -> None:
    cut = list(pieces(fragment([[0, 0, 0], [0, 0, 0]])))
    assert cut == [
        Piece(env=0, first=0, stop=3, done=False),
        Piece(env=1, first=0, stop=3, done=False),
    ]


def test_a_piece_ends_with_its_episode_and_the_next_begins_after_the_reset_row() -> None:
    whole = fragment([[0, 1, 0, 0, 0]])
    assert list(pieces(whole)) == [
        Piece(env=0, first=0, stop=2, done=True),
        Piece(env=0, first=3, stop=5, done=False),
    ]
    assert whole.steps == 4, "the reset row is no step"


def test_a_fragment_may_begin_with_the_reset_of_an_episode_that_ended_before() -> None:
    assert list(pieces(fragment([[0, 0, 1]], resets=[True]))) == [
        Piece(env=0, first=1, stop=3, done=True)
    ]


@given(data=st.data(), envs=st.integers(1, 3), rows=st.integers(1, 12))
def test_pieces_are_what_reading_row_by_row_finds(
    data: st.DataObject, envs: int, rows: int
) -> None:
    ends = data.draw(
        st.lists(
            st.lists(st.integers(0, 1), min_size=rows, max_size=rows), min_size=envs, max_size=envs
        )
    )
    resets = data.draw(st.lists(st.booleans(), min_size=envs, max_size=envs))
    whole = fragment(ends, resets=resets)
    cut = [
        (piece.env, tuple(range(piece.first, piece.stop)), piece.done) for piece in pieces(whole)
    ]
    assert cut == by_hand(whole)
    assert sum(len(rows) for _, rows, _ in cut) == whole.steps


@pytest.mark.parametrize("truncates", [False, True])
def test_an_episode_holds_what_the_policy_saw_and_drew_and_the_given_rewards(
    truncates: bool,
) -> None:
    whole = fragment([[0, 0, 0, 0], [0, 0, 1, 0]], truncates=truncates)
    rewards = np.full((2, 4), 7.0, np.float32)
    (piece,) = [piece for piece in pieces(whole) if piece.done]
    episode = build_episode(whole, piece, rewards=rewards, episode_id="e", t_started=40)

    assert episode.id_ == "e"
    assert (episode.t_started, episode.t, len(episode)) == (40, 43, 3)
    np.testing.assert_array_equal(episode.get_observations(), whole.policy_obs[1, :4])
    np.testing.assert_array_equal(episode.get_actions(), whole.sampled[1, :3])
    np.testing.assert_array_equal(episode.get_rewards(), rewards[1, :3])
    np.testing.assert_array_equal(
        episode.get_extra_model_outputs(Columns.ACTION_LOGP), whole.logp[1, :3]
    )
    np.testing.assert_array_equal(
        episode.get_extra_model_outputs(Columns.ACTION_DIST_INPUTS), whole.dist_inputs[1, :3]
    )
    assert episode.get_infos() == [{}] * 4, "infos name the env reward in many environments"
    assert (episode.is_terminated, episode.is_truncated) == (not truncates, truncates)


def test_only_the_chunk_with_the_last_step_is_done() -> None:
    whole = fragment([[0, 0, 1, 0, 0]])
    rewards = np.zeros((1, 5), np.float32)
    chunks: list[Any] = [
        build_episode(whole, piece, rewards=rewards, episode_id="e", t_started=0)
        for piece in pieces(whole)
    ]
    assert [chunk.is_done for chunk in chunks] == [True, False]


def test_steps_without_a_reward_are_never_learned_from() -> None:
    whole = fragment([[0, 0]])
    rewards = np.array([[1.0, np.nan]], np.float32)
    with pytest.raises(
        AssertionError, match="unlabeled steps in episode e: rewards must be finite before learning"
    ):
        build_episode(whole, next(pieces(whole)), rewards=rewards, episode_id="e", t_started=0)


def test_a_policy_that_is_not_finite_is_told_from_observations_that_are_not() -> None:
    good = fragment([[0, 0]])
    broken = np.full_like(good.dist_inputs, np.nan)
    with pytest.raises(ValueError, match="are not, after finite observations"):
        replace(good, dist_inputs=broken)
    with pytest.raises(ValueError, match="are not, after observations that are not finite"):
        replace(good, dist_inputs=broken, obs=np.full_like(good.obs, np.inf))
