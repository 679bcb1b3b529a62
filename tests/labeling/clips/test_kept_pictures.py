"""Environments that draw themselves but keep no state: a small picture of every step,
for people only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlhp.config.schema import ClipsConfig, EnvConfig
from rlhp.envs.make import make_env, make_vector_env, needs_pictures, probe
from rlhp.envs.states import (
    PICTURE_BYTES,
    PICTURE_SIDE,
    CannotDraw,
    Pictured,
    open_picture,
    state_kind,
    way_to_draw,
)
from rlhp.labeling.clips.views import make_view
from rlhp.learn.evaluate import play_episode, random_act
from rlhp.types import Array
from tests.labeling.clips.drawn import Dot
from tests.small_runs import env_runner, small


class Painted(Dot):
    """The dot on noise, larger, and with nothing but `render` to tell what it looked
    like.
    """

    rlhp_state = None  # type: ignore[assignment]

    def render(self) -> Any:
        picture = np.zeros((200, 300, 3), np.uint8)
        picture[..., 2] = 120
        left = int(self.place) * 4
        picture[80:110, left : left + 30] = (255, 40, 40)
        return picture


class Noise(Painted):
    """What no JPEG makes small."""

    def render(self) -> Any:
        return np.random.default_rng(self.steps).integers(0, 255, (200, 300, 3), np.uint8)


PAINTED = EnvConfig(id="tests.labeling.clips.test_kept_pictures:Painted", max_episode_steps=20)


def red_from(picture: Array) -> float:
    """Where the red square begins, as a share of the width."""
    red = (picture[..., 0] > 150) & (picture[..., 2] < 100)
    return float(np.flatnonzero(red.any(axis=0))[0] / picture.shape[1])


def test_only_what_cannot_be_drawn_later_needs_pictures() -> None:
    assert needs_pictures(PAINTED)
    for other in (
        "HalfCheetah-v5",
        "CartPole-v1",
        "LunarLander-v3",
        "tests.labeling.clips.drawn:Dot",
    ):
        assert not needs_pictures(EnvConfig(id=other, max_episode_steps=9))
    assert not needs_pictures(EnvConfig(id="tests.environments:Drift", max_episode_steps=9))


def test_a_picture_fits_and_comes_back() -> None:
    for kind in (Painted, Noise):
        env = Pictured(kind(render_mode="rgb_array"), draws=True)
        env.reset(seed=0)
        kept = env.picture()
        assert (kept.dtype.name, kept.nbytes) == ("float64", PICTURE_BYTES)
        picture = open_picture(kept)
        assert max(picture.shape) in (PICTURE_SIDE, PICTURE_SIDE // 2)
        assert (
            picture.shape[1] * 2 == picture.shape[0] * 3
            or abs(picture.shape[0] * 3 - picture.shape[1] * 2) <= 3
        )


def test_a_damaged_picture_is_refused() -> None:
    with pytest.raises(CannotDraw, match="the picture kept with a step is damaged"):
        open_picture(np.zeros(PICTURE_BYTES // 8))


@pytest.mark.parametrize("source", ["human", "none"])
def test_an_env_runner_keeps_them_for_people_alone(source: str) -> None:
    config = small(env=PAINTED.model_dump(), labels={"source": source}, query={"segment_length": 5})
    runner, _, basket = env_runner(config)
    runner.warm_up(60)
    assert bool(basket.segments) == (source == "human")
    for segment in basket.segments:
        assert segment.state_kind == "picture"
        assert segment.episode.split("-")[2] == "0", "of the first environment alone"
        assert segment.state is not None
        for state, seen in zip(segment.state, segment.obs[""], strict=False):
            assert red_from(open_picture(state)) == pytest.approx(4 * int(seen[0]) / 300, abs=0.02)
    runner.stop()


def test_clips_are_made_of_them() -> None:
    episode = play_episode(
        random_act, PAINTED, probe(PAINTED).spaces, steps=6, seed=0, name="painted"
    )
    view = make_view(PAINTED, ClipsConfig())
    frames = view.frames(episode)
    assert view.how == "picture kept with the step"
    for frame, seen in zip(frames, episode.obs[""], strict=False):
        assert red_from(frame) == pytest.approx(4 * int(seen[0]) / 300, abs=0.02)


def test_a_lander_is_drawn_from_its_ground_and_bodies() -> None:
    config = EnvConfig(id="LunarLander-v3", hide_termination=True)
    vector: Any = make_vector_env(config, num_envs=1, vectorize="sync")
    drawing = make_env(config, render_mode="rgb_array")
    episode = play_episode(
        random_act, config, probe(config).spaces, steps=40, seed=4, name="lander"
    )
    assert (episode.state_kind, state_kind(vector.envs[0]), way_to_draw(drawing)) == (
        "lander",
        "lander",
        "lander",
    )
    view = make_view(config, ClipsConfig(width=600, height=400))
    frames = view.frames(episode)
    drawing.reset(seed=4)
    for step, action in enumerate(episode.actions):
        sim: Any = drawing.unwrapped
        # sparks are made only while drawing, and say nothing about the flight
        for particle in sim.particles:
            sim.world.DestroyBody(particle)
        sim.particles = []
        differs = np.abs(frames[step].astype(int) - np.asarray(drawing.render())).max(axis=-1) > 30
        assert differs.mean() < 1e-3, f"step {step}"
        drawing.step(int(action))
    assert (frames[0] != frames[-1]).any()
    vector.close()
    drawing.close()  # type: ignore[no-untyped-call]
