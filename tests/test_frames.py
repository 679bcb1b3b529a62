"""Stacks whose frames are kept once come back exactly as they were."""

from __future__ import annotations

import numpy as np
import pytest

from rlhp.frames import FrameColumn, nbytes, restack, slide, slides, unstack
from rlhp.types import Array

RNG = np.random.default_rng(0)


def episodes(*lengths: int, depth: int = 4) -> Array:
    """Stacks of several episodes one after the other, the first of each a frame
    repeated: [T, C, 8, 6].
    """
    rows = []
    for length in lengths:
        frames = RNG.integers(256, size=(length, 8, 6)).astype(np.uint8)
        rows += [
            np.stack([frames[max(0, t - age)] for age in range(depth - 1, -1, -1)])
            for t in range(length)
        ]
    return np.stack(rows)


@pytest.mark.parametrize("lengths", [(1,), (2,), (26,), (3, 5), (1, 1, 1), (10, 2, 14)])
def test_stacks_come_back_and_frames_are_kept_once(lengths: tuple[int, ...]) -> None:
    stacks = episodes(*lengths)
    frames, first = unstack(stacks)
    assert len(frames) == sum(lengths) + 3 * len(lengths)
    np.testing.assert_array_equal(restack(frames, first, depth=4), stacks)


def test_pictures_that_are_no_stack_come_back_too() -> None:
    colored = RNG.integers(256, size=(7, 3, 8, 6)).astype(np.uint8)
    np.testing.assert_array_equal(restack(*unstack(colored), depth=3), colored)


def test_within_an_episode_a_stack_is_a_view_of_its_frames_and_is_unstacked_without_a_search() -> (
    None
):
    frames, first = unstack(episodes(26))
    view = restack(frames, first, depth=4)
    assert slides(view)
    assert np.shares_memory(view, frames)
    assert not view.flags.writeable
    assert nbytes(view) == frames.nbytes == 29 * 48
    assert nbytes(np.array(view)) == 26 * 4 * 48
    again, _ = unstack(view[3:10])
    assert np.shares_memory(again, frames)
    np.testing.assert_array_equal(again, frames[3:13])
    np.testing.assert_array_equal(slide(frames, depth=4), view)


def test_rows_that_lie_about_their_frames_are_refused() -> None:
    frames, first = unstack(episodes(5))
    for wrong in (first + 1, first - 1, first[:0]):
        with pytest.raises(ValueError, match=r"stacks of 4 of 8 frames cannot begin"):
            restack(frames, wrong, depth=4)


@pytest.mark.parametrize("room", [1, 40])
def test_a_column_keeps_what_several_environments_show_each_with_its_own_episodes(
    room: int,
) -> None:
    expected = np.stack([episodes(20), episodes(7, 13), episodes(19, 1)])
    column = FrameColumn(expected[:, 0], room=room)
    for row in range(1, 20):
        column.add(expected[:, row])
    np.testing.assert_array_equal(column.stacks(), expected)


def test_a_column_without_an_episode_s_end_is_a_view() -> None:
    expected = np.stack([episodes(20), episodes(20)])
    column = FrameColumn(expected[:, 0], room=19)
    for row in range(1, 20):
        column.add(expected[:, row])
    assert slides(column.stacks())
    np.testing.assert_array_equal(column.stacks(), expected)
