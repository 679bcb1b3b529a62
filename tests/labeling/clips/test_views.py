"""Segments to frames, by whatever the environment allows."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rlhp.config.schema import ClipsConfig, EnvConfig
from rlhp.envs.states import CannotDraw
from rlhp.labeling.clips.views import as_rgb, check_drawable, fitted, make_view
from rlhp.types import Array
from tests.labeling.clips.drawn import DOT, dots, played

SMALL_WORLDS = (
    "CartPole-v1",
    "Pendulum-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "FrozenLake-v1",
    "Taxi-v3",
)


@pytest.mark.parametrize("name", SMALL_WORLDS)
def test_a_small_world_is_drawn_as_it_drew_itself(name: str) -> None:
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    config = EnvConfig(id=name)
    segment, pictures = played(config, steps=6, seed=1)
    height, width = pictures[0].shape[:2]
    view = make_view(config, ClipsConfig(width=width, height=height))
    frames = view.frames(segment)
    view.close()
    assert segment.state is None
    assert frames.shape == (6, *pictures[0].shape)
    for frame, picture in zip(frames, pictures, strict=True):
        # Float32 observations against float64 states: an edge may fall one pixel
        # beside.
        assert np.mean(np.abs(frame.astype(int) - picture) > 8) < 2e-3
    assert len({frame.tobytes() for frame in frames}) > 1


def test_an_environment_of_ones_own_is_drawn_from_its_states() -> None:
    segment, pictures = played(DOT, steps=5)
    view = make_view(DOT, ClipsConfig(width=64, height=64))
    assert np.array_equal(view.frames(segment), np.stack(pictures))
    assert (view.fps, view.how) == (12, "its own render (state)")


def test_playback_is_as_fast_as_the_config_says() -> None:
    assert make_view(DOT, ClipsConfig(fps=3)).fps == 3


def test_the_newest_picture_of_a_stack_is_shown() -> None:
    config = EnvConfig(id="tests.labeling.clips.drawn:Screen", max_episode_steps=9)
    segment, _ = played(config, steps=4)
    view = make_view(config, ClipsConfig(width=48, height=40))
    frames = view.frames(segment)
    assert np.array_equal(frames, np.repeat(segment.obs[""][:4, -1][..., None], 3, axis=-1))


def test_a_segment_without_the_state_it_is_drawn_from_is_refused() -> None:
    view = make_view(DOT, ClipsConfig())
    segment = dots(1, 2)
    object.__setattr__(segment, "state", None)
    with pytest.raises(CannotDraw, match="carries no state to draw"):
        view.frames(segment)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "tests.environments:Drift",
            "cannot be drawn: it is neither MuJoCo nor one of Gymnasium's small worlds",
        ),
        (
            "tests.labeling.clips.drawn:Undrawable",
            "can be put into a state, but not drawn: give it render_mode='rgb_array'",
        ),
        ("tests.labeling.clips.drawn:NoPicture", "could not be made.*no paint left"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_the_start(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_drawable(EnvConfig(id=name, max_episode_steps=9))


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("Hopper-v5", "mujoco"),
        ("CartPole-v1", "observed"),
        (DOT.id, "state"),
        ("ALE/Pong-v5", "replay"),
    ],
)
def test_what_can_be_drawn_says_how(name: str, way: str) -> None:
    assert check_drawable(EnvConfig(id=name, max_episode_steps=9)) == way


def picture(height: int, width: int) -> Array:
    return np.random.default_rng(0).integers(0, 255, (2, height, width, 3), np.uint8)


def test_large_frames_shrink_into_the_clip_and_keep_their_shape() -> None:
    assert fitted(picture(400, 600), ClipsConfig()).shape == (2, 160, 240, 3)


def test_small_frames_grow_by_whole_numbers() -> None:
    small = picture(210, 160)
    grown = fitted(small, ClipsConfig())
    assert grown.shape == (2, 420, 320, 3)
    assert np.array_equal(grown[:, ::2, 1::2], small)
    assert fitted(picture(240, 240), ClipsConfig()).shape == (2, 240, 240, 3)
    assert fitted(picture(84, 84), ClipsConfig()).shape == (2, 252, 252, 3)
    assert fitted(picture(300, 400), ClipsConfig(width=1000, height=1000)).shape == (2, 300, 400, 3)


def test_gray_pictures_become_color() -> None:
    gray = np.arange(2 * 6 * 7, dtype=np.uint8).reshape(2, 6, 7)
    assert np.array_equal(as_rgb(gray)[..., 2], gray)
    assert np.array_equal(as_rgb(gray[..., None])[..., 0], gray)
