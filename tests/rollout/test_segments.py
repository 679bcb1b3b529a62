"""Segments are whole stretches of one episode, however the rollout was cut into
fragments.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlhp.envs.spaces import Leaf, ObsSpec
from rlhp.rollout.fragment import Fragment, pieces
from rlhp.rollout.segments import Origin, SegmentCutter
from rlhp.types import Array, Segment, segment_id

K = 4
SPEC = ObsSpec(
    leaves=(Leaf(path="episode", shape=(), dtype="<f8"), Leaf(path="step", shape=(1,), dtype="<f4"))
)


class Rollout:
    """One environment whose every number says which episode and step it belongs to."""

    def __init__(self, lengths: Sequence[int], *, truncates: bool = False) -> None:
        self.rows: list[dict[str, Any]] = []
        for episode, length in enumerate(lengths):
            for step in range(length):
                self._row(episode, step, valid=True, done=step == length - 1)
            # shows the last observation, then resets
            self._row(episode, length, valid=False, done=False)
        self.truncates = truncates

    def _row(self, episode: int, step: int, *, valid: bool, done: bool) -> None:
        self.rows.append(
            {"obs": (episode, step), "valid": valid, "done": done, "number": 100 * episode + step}
        )

    def fragment(self, first: int, stop: int) -> Fragment:
        """Rows first..stop-1, as an env runner ships them."""
        rows = self.rows[first:stop]
        seen = [row["obs"] for row in self.rows[first : stop + 1]]
        obs = np.array(seen + [seen[-1]] * (len(rows) + 1 - len(seen)), np.float64)[None]
        numbers = np.array([row["number"] for row in rows], np.float32)[None]
        done = np.array([row["done"] for row in rows])[None]
        valid = np.array([row["valid"] for row in rows])[None]
        return Fragment(
            obs=obs,
            policy_obs=obs.astype(np.float32) - 50,
            sampled=numbers[..., None] + 0.5,
            executed=numbers[..., None],
            logp=numbers,
            dist_inputs=numbers[..., None],
            env_reward=np.where(valid, numbers, np.float32("nan")),
            terminated=done & (not self.truncates),
            truncated=done & self.truncates,
            valid=valid,
            state=np.stack([numbers, -numbers], axis=-1).astype(np.float64),
        )


def cut(
    lengths: Sequence[int],
    *,
    sizes: Sequence[int],
    share: bool = True,
    priced: bool = True,
    seed: int = 0,
    truncates: bool = False,
) -> tuple[list[Segment], SegmentCutter]:
    """The segments of these episodes, with fragments of these sizes in turn."""
    rollout = Rollout(lengths, truncates=truncates)
    cutter = SegmentCutter(SPEC, length=K, share_env_reward=share, rng=np.random.default_rng(seed))
    segments: list[Segment] = []
    first, number, episode = 0, 0, 0
    while first < len(rollout.rows):
        stop = min(len(rollout.rows), first + sizes[number % len(sizes)])
        fragment = rollout.fragment(first, stop)
        predicted: Array | None = 2 * fragment.executed[..., 0] if priced else None
        origin = Origin(
            run="r",
            env_runner=3,
            policy_version=number,
            env_steps=first,
            reward_version=7 if priced else None,
            state_kind="hook",
        )
        for piece in pieces(fragment):
            segments += cutter.follow(
                fragment, piece, predicted=predicted, episode=f"e{episode}", origin=origin
            )
            episode += piece.done
        first, number = stop, number + 1
    return segments, cutter


def agrees_with_its_episode(segment: Segment) -> bool:
    """Whether every array holds the steps that the segment's name says, and nothing
    else.
    """
    episode = int(segment.episode[1:])
    steps = np.arange(segment.start, segment.start + segment.length)
    numbers = 100.0 * episode + steps
    return (
        list(segment.obs["episode"]) == [episode] * (segment.length + 1)
        and list(segment.obs["step"][:, 0]) == [*steps, segment.start + segment.length]
        and list(segment.actions[:, 0]) == list(numbers)
        and (segment.state is not None and list(segment.state[:, 0]) == list(numbers))
        and (segment.env_reward is None or list(segment.env_reward) == list(numbers))
        and (
            segment.predicted_reward is None or list(segment.predicted_reward) == list(2 * numbers)
        )
    )


episodes = st.lists(st.integers(1, 14), min_size=1, max_size=6)
fragments = st.lists(st.integers(1, 30), min_size=1, max_size=4)


@given(lengths=episodes, sizes=fragments, seed=st.integers(0, 50))
def test_a_segment_never_crosses_a_reset_and_every_array_holds_its_own_steps(
    lengths: list[int], sizes: list[int], seed: int
) -> None:
    segments, _ = cut(lengths, sizes=sizes, seed=seed)
    for segment in segments:
        length = lengths[int(segment.episode[1:])]
        assert agrees_with_its_episode(segment)
        assert segment.length == min(K, length)
        assert segment.start + segment.length <= length


@given(lengths=episodes, sizes=fragments, seed=st.integers(0, 50))
def test_how_the_rollout_was_cut_into_fragments_changes_no_segment(
    lengths: list[int], sizes: list[int], seed: int
) -> None:
    whole, _ = cut(lengths, sizes=[1000], seed=seed)
    parts, _ = cut(lengths, sizes=sizes, seed=seed)
    assert [segment.id for segment in parts] == [segment.id for segment in whole]
    for one, other in zip(parts, whole, strict=True):
        for path in one.obs:
            np.testing.assert_array_equal(one.obs[path], other.obs[path])


@given(lengths=episodes, sizes=fragments, seed=st.integers(0, 50))
def test_every_episode_has_exactly_one_segment_that_shows_its_end_and_no_segment_twice(
    lengths: list[int], sizes: list[int], seed: int
) -> None:
    segments, _ = cut(lengths, sizes=sizes, seed=seed)
    ends = [segment.episode for segment in segments if segment.terminated]
    assert ends == [f"e{episode}" for episode in range(len(lengths))]
    assert len({segment.id for segment in segments}) == len(segments)
    for segment in segments:
        assert segment.terminated == (
            segment.start + segment.length == lengths[int(segment.episode[1:])]
        )


def test_the_id_is_that_of_the_run_the_runner_the_episode_and_the_steps() -> None:
    segments, _ = cut([9], sizes=[100])
    for segment in segments:
        assert segment.id == segment_id(
            run="r", env_runner=3, episode="e0", start=segment.start, length=K
        )


def test_a_truncated_episode_says_so() -> None:
    segments, _ = cut([9], sizes=[100], truncates=True)
    assert [(segment.terminated, segment.truncated) for segment in segments][-1] == (False, True)


def test_windows_lie_back_to_back_from_a_random_offset_so_no_phase_is_preferred() -> None:
    offsets = set()
    for seed in range(40):
        segments, _ = cut([50], sizes=[100], seed=seed)
        starts = [segment.start for segment in segments]
        assert all(later - earlier == K for earlier, later in pairwise(starts[:-1]))
        offsets.add(starts[0])
    assert offsets == set(range(K))


def test_an_episode_shorter_than_a_segment_is_one_short_segment_and_counted() -> None:
    segments, cutter = cut([2, 9, 1], sizes=[100])
    assert [segment.length for segment in segments if segment.episode in ("e0", "e2")] == [2, 1]
    assert cutter.short == 2


def test_an_episode_of_exactly_one_segment_is_cut_once() -> None:
    for seed in range(10):
        segments, cutter = cut([K], sizes=[100], seed=seed)
        assert [segment.start for segment in segments] == [0]
        assert cutter.short == 0


def test_without_leave_to_share_it_no_segment_carries_the_env_reward() -> None:
    segments, _ = cut([9, 2], sizes=[5], share=False)
    assert segments
    assert all(segment.env_reward is None for segment in segments)


def test_before_the_first_reward_version_segments_are_unpriced() -> None:
    segments, _ = cut([9], sizes=[5], priced=False)
    assert all(
        segment.predicted_reward is None and segment.reward_version is None for segment in segments
    )


def test_a_segment_that_began_before_the_first_reward_version_is_unpriced_as_a_whole() -> None:
    rollout = Rollout([12])
    cutter = SegmentCutter(SPEC, length=K, share_env_reward=True, rng=np.random.default_rng(0))
    segments: list[Segment] = []
    for first, stop, version in ((0, 5, None), (5, 12, 1)):
        fragment = rollout.fragment(first, stop)
        origin = Origin(
            run="r",
            env_runner=0,
            policy_version=0,
            env_steps=0,
            reward_version=version,
            state_kind="hook",
        )
        predicted = None if version is None else fragment.executed[..., 0]
        (piece,) = pieces(fragment)
        segments += cutter.follow(fragment, piece, predicted=predicted, episode="e0", origin=origin)
    for segment in segments:
        assert (segment.reward_version == 1) == (segment.start >= 5), segment.start


def test_a_long_episode_is_not_kept_in_memory() -> None:
    rollout = Rollout([3000])
    cutter = SegmentCutter(SPEC, length=K, share_env_reward=True, rng=np.random.default_rng(0))
    origin = Origin(
        run="r", env_runner=0, policy_version=0, env_steps=0, reward_version=None, state_kind="hook"
    )
    for first in range(0, 2990, 10):
        fragment = rollout.fragment(first, first + 10)
        (piece,) = pieces(fragment)
        for segment in cutter.follow(fragment, piece, predicted=None, episode="e0", origin=origin):
            assert segment.obs["step"].base is None or len(segment.obs["step"].base) < 100
        kept = sum(len(part) for part in cutter._running[0].columns["obs"])
        assert kept <= 10 * K + 10


def test_a_segment_keeps_nothing_of_the_fragment_it_was_cut_from() -> None:
    rollout = Rollout([12, 12])
    cutter = SegmentCutter(SPEC, length=K, share_env_reward=True, rng=np.random.default_rng(0))
    origin = Origin(
        run="r", env_runner=0, policy_version=0, env_steps=0, reward_version=1, state_kind="hook"
    )
    segments: list[Segment] = []
    for first in range(0, 26, 6):
        fragment = rollout.fragment(first, first + 6)
        predicted = 2 * fragment.executed[..., 0]
        for piece in pieces(fragment):
            name = f"e{rollout.rows[first + piece.first]['obs'][0]}"
            segments += cutter.follow(
                fragment, piece, predicted=predicted, episode=name, origin=origin
            )
        for array in (
            fragment.obs,
            fragment.executed,
            fragment.env_reward,
            fragment.state,
            predicted,
        ):
            assert array is not None
            array[...] = 777
    assert len(segments) > 3
    assert all(map(agrees_with_its_episode, segments))
