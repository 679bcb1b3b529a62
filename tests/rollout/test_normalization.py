"""Running moments: exact over any number of env runners, and still between two merges."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhp.rollout.normalization import CLIP, Moments, RunningMoments


def rows(count: int, *, seed: int, size: int = 3) -> np.ndarray:
    """Observations far from the origin, which a naive sum of squares would not survive."""
    return np.random.default_rng(seed).normal(1e4, [0.1, 1.0, 50.0][:size], (count, size))


@given(cuts=st.lists(st.integers(1, 99), max_size=5), seed=st.integers(0, 20))
def test_moments_merged_in_any_pieces_are_those_of_all_rows(cuts: list[int], seed: int) -> None:
    everything = rows(100, seed=seed)
    total = Moments(3)
    for part in np.split(everything, sorted(set(cuts))):
        moments = Moments(3)
        moments.add(part)
        total.merge(moments)
    assert total.count == 100
    np.testing.assert_allclose(total.mean, everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(total.std(), everything.std(0), rtol=1e-7)


def test_merging_nothing_changes_nothing() -> None:
    moments = Moments(3)
    moments.add(rows(10, seed=0))
    before = moments.to_state()
    moments.merge(Moments(3))
    assert {name: np.asarray(value).tolist() for name, value in moments.to_state().items()} == {
        name: np.asarray(value).tolist() for name, value in before.items()
    }


def test_what_never_varied_is_not_scaled() -> None:
    moments = Moments(2)
    moments.add(np.tile([5.0, 1.0], (10, 1)))
    assert moments.std().tolist() == [1.0, 1.0]


def test_before_the_first_merge_the_policy_sees_observations_as_they_are() -> None:
    moments = RunningMoments()
    obs = rows(5, seed=0)
    moments.observe("obs", obs)
    np.testing.assert_array_equal(moments.normalize(obs), obs.astype(np.float32))
    assert moments.normalize(obs).dtype == np.float32


def test_constants_stay_frozen_until_the_next_merge() -> None:
    moments = RunningMoments()
    moments.observe("obs", rows(50, seed=0))
    moments.fold()
    seen = rows(5, seed=9)
    before = moments.normalize(seen)
    moments.observe("obs", 100 * rows(50, seed=1))
    np.testing.assert_array_equal(moments.normalize(seen), before)
    moments.fold()
    assert not np.allclose(moments.normalize(seen), before)


def test_several_runners_agree_after_a_merge_with_numpy_over_all_their_rows() -> None:
    driver, runners = RunningMoments(), [RunningMoments() for _ in range(3)]
    everything = []
    for turn in range(4):
        for index, runner in enumerate(runners):
            part = rows(20 + 7 * index, seed=10 * turn + index)
            everything.append(part)
            runner.observe("obs", part)
        merged = driver.merge_states([runner.get_state() for runner in runners])
        for each in (driver, *runners):
            each.set_state(merged)
    whole = np.concatenate(everything)
    seen = rows(10, seed=99)
    expected = np.clip((seen - whole.mean(0)) / whole.std(0), -CLIP, CLIP)
    for each in (driver, *runners):
        np.testing.assert_allclose(each.normalize(seen), expected, rtol=1e-5)
    assert all(not runner.fresh for runner in runners), "what was merged is not counted again"


def test_a_local_runner_that_folds_counts_no_row_twice() -> None:
    moments = RunningMoments()
    everything = []
    for turn in range(3):
        part = rows(30, seed=turn)
        everything.append(part)
        moments.observe("obs", part)
        moments.fold()
        moments.fold()
    assert moments.known["obs"].count == 90
    np.testing.assert_allclose(
        moments.known["obs"].mean, np.concatenate(everything).mean(0), rtol=1e-12
    )


def test_normalized_observations_are_clipped() -> None:
    moments = RunningMoments()
    moments.observe("obs", rows(100, seed=0))
    moments.fold()
    far = moments.normalize(np.full((1, 3), 1e9))
    assert far.max() == CLIP


@pytest.mark.parametrize("center", [False, True])
def test_the_control_reward_is_divided_by_its_std_and_loses_at_most_its_first_mean(
    center: bool,
) -> None:
    moments = RunningMoments()
    paid = np.random.default_rng(0).normal(3.0, 20.0, (3000, 1))
    asked = np.array([1.0, -5.0])
    for first in range(0, 3000, 1000):
        moments.observe("reward", paid[first : first + 1000])
        mean = paid[:1000].mean() if center else 0.0
        # a first batch is scaled by itself, later ones by all before them
        std = paid[: max(1000, first)].std()
        np.testing.assert_allclose(
            moments.standardize(asked, center=center), (asked - mean) / std, rtol=1e-9
        )
        moments.fold()
    again = RunningMoments()
    again.set_state(moments.get_state())
    again.observe("reward", paid[:10])
    np.testing.assert_array_equal(
        again.standardize(asked, center=center), moments.standardize(asked, center=center)
    )


def test_no_rows_are_no_observation() -> None:
    moments = RunningMoments()
    moments.observe("obs", np.zeros((0, 3)))
    assert moments.fresh == {}


def test_the_state_comes_back_as_it_was_both_parts_of_it() -> None:
    moments = RunningMoments()
    moments.observe("obs", rows(30, seed=0))
    moments.fold()
    moments.observe("obs", rows(10, seed=1))
    state = moments.get_state()
    again = RunningMoments()
    again.set_state(state)
    seen = rows(10, seed=2)
    np.testing.assert_array_equal(again.normalize(seen), moments.normalize(seen))
    for each in (moments, again):
        each.fold()
    np.testing.assert_array_equal(again.normalize(seen), moments.normalize(seen))
    plain = {
        part: {
            name: {k: np.asarray(v).tolist() for k, v in m.items()}
            for name, m in state[part].items()
        }
        for part in state
    }
    assert json.loads(json.dumps(plain)) == plain, "plain data, which a checkpoint can hold"


def test_reset_forgets_everything() -> None:
    moments = RunningMoments()
    moments.observe("obs", rows(30, seed=0))
    moments.fold()
    moments.reset_state()
    obs = rows(5, seed=1)
    np.testing.assert_array_equal(moments.normalize(obs), obs.astype(np.float32))
