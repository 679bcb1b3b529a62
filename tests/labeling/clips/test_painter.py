"""The drawing process: real, and really killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from rlhp.config.schema import ClipsConfig, EnvConfig
from rlhp.envs.states import CannotDraw
from rlhp.labeling.clips.painter import Painter, PainterBroken
from rlhp.labeling.clips.video import first_frame
from rlhp.types import encode
from tests.labeling.clips.drawn import BLANK, CRASH, DOT, FAIL, HANG, SIDE, dots, played

CLIPS = ClipsConfig(width=SIDE, height=SIDE, codec="apng")
"""Lossless, so that frames can be compared."""


def test_a_segment_becomes_a_clip_that_plays() -> None:
    segment, pictures = played(DOT, steps=8)
    with Painter(DOT, CLIPS) as painter:
        clip = painter.clip(segment)
        assert np.array_equal(first_frame(clip.data), pictures[0])
        assert (clip.frames, clip.width, clip.height, clip.fps) == (8, SIDE, SIDE, 12)
        assert clip.how == painter.how == "its own render (state)"
        assert painter.clip(encode(segment)).data == clip.data


def test_who_crashes_once_is_drawn_by_the_next_process(tmp_path: Path) -> None:
    config = DOT.model_copy(update={"kwargs": {"marker": str(tmp_path / "crashed")}})
    with Painter(config, CLIPS) as painter:
        first_frame(painter.clip(dots(1, 2)).data)
        before = painter.pid
        first_frame(painter.clip(dots(1, CRASH)).data)
        assert painter.pid != before


def test_who_crashes_always_is_given_up_and_the_next_is_drawn() -> None:
    with Painter(DOT, CLIPS) as painter:
        with pytest.raises(CannotDraw, match="ended over it, twice: exit code -9"):
            painter.clip(dots(CRASH))
        assert painter.clip(dots(1, 2)).frames == 2


def test_a_process_killed_between_two_clips_is_not_missed() -> None:
    with Painter(DOT, CLIPS) as painter:
        one = painter.clip(dots(1, 2))
        assert painter.pid is not None
        os.kill(painter.pid, signal.SIGKILL)
        assert painter.clip(dots(1, 2)).data == one.data


def test_who_takes_too_long_is_given_up() -> None:
    with (
        Painter(DOT, CLIPS.model_copy(update={"timeout_seconds": 0.5})) as painter,
        pytest.raises(CannotDraw, match="exit code -9"),
    ):
        painter.clip(dots(HANG))


@pytest.mark.parametrize(
    ("place", "words"),
    [(FAIL, "RuntimeError: the brush broke"), (BLANK, "every frame is the same single color")],
)
def test_what_cannot_be_drawn_says_why_and_costs_no_process(place: float, words: str) -> None:
    with Painter(DOT, CLIPS) as painter:
        painter.clip(dots(1, 2))
        before = painter.pid
        with pytest.raises(CannotDraw, match=words):
            painter.clip(dots(place, place))
        with pytest.raises(CannotDraw, match="not an encoded segment"):
            painter.clip(b"no segment")
        assert painter.pid == before


def test_an_environment_that_cannot_be_made_for_drawing_is_said_in_one_line() -> None:
    config = EnvConfig(id="tests.labeling.clips.drawn:NoPicture", max_episode_steps=9)
    with (
        Painter(config, CLIPS) as painter,
        pytest.raises(PainterBroken, match=r"cannot be drawn: .*no paint left"),
    ):
        painter.clip(dots(1))


def test_the_drawing_process_ends_with_its_holder() -> None:
    painter = Painter(DOT, CLIPS)
    painter.clip(dots(1, 2))
    pid = painter.pid
    painter.close()
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
    assert painter.pid is None
