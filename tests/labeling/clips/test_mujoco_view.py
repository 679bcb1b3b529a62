"""MuJoCo segments from their states, against Gymnasium's own drawing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rlhp.config.schema import ClipsConfig, EnvConfig
from rlhp.labeling.clips import gl
from rlhp.labeling.clips.painter import Clip, Painter
from rlhp.labeling.clips.video import first_frame
from rlhp.types import Array
from tests.labeling.clips.drawn import played
from tests.labeling.clips.test_gl import needs_gl
from tests.labeling.clips.test_video import decoded

SIDE = 120
LIKE_GYMNASIUM = ["HalfCheetah-v5", "Hopper-v5", "Reacher-v5", "InvertedPendulum-v5"]


def shown(config: EnvConfig, states: Array, *, backend: str) -> Clip:
    """A clip of these states, lossless."""
    segment, _ = played(config, steps=len(states))
    object.__setattr__(segment, "state", states)
    settings = ClipsConfig.model_validate(
        {"width": SIDE, "height": SIDE, "codec": "apng", "backend": backend}
    )
    with Painter(config, settings) as painter:
        return painter.clip(segment)


@pytest.fixture(scope="module")
def gymnasium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what Gymnasium drew, in a process that may load OpenGL."""
    folder = tmp_path_factory.mktemp("gymnasium")
    command = [
        sys.executable,
        "-m",
        "tests.labeling.clips.gymnasium_frames",
        str(folder),
        str(SIDE),
        *LIKE_GYMNASIUM,
    ]
    subprocess.run(command, check=True, env={**os.environ, "MUJOCO_GL": gl.best()})
    return folder


@needs_gl
@pytest.mark.parametrize("name", LIKE_GYMNASIUM)
def test_a_state_is_drawn_as_gymnasium_would(gymnasium: Path, name: str) -> None:
    with np.load(gymnasium / f"{name}.npz") as file:
        states, pictures = file["states"], file["frames"]
    clip = shown(EnvConfig(id=name), states, backend="auto")
    frames = decoded(clip.data)
    assert clip.how in ("mujoco (egl)", "mujoco (osmesa)")
    for k, frame in enumerate(frames):
        differences = [np.abs(frame.astype(int) - picture).mean() for picture in pictures]
        assert int(np.argmin(differences)) == k, "each state looks like itself"
        assert differences[k] < 1, "the same camera; only reflections are left out"


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Ant-v5", "Reacher-v5", "Swimmer-v5"])
def test_without_opengl_a_schematic_view_moves_and_says_what_it_is(name: str) -> None:
    config = EnvConfig(id=name, hide_termination=True)
    segment, _ = played(config, steps=12)
    assert segment.state is not None
    clip = shown(config, segment.state[::4], backend="schematic")
    assert clip.how == "mujoco (schematic)"
    frames = decoded(clip.data)
    assert len({frame.tobytes() for frame in frames}) == 3
    foot = first_frame(clip.data)[-14:, 4:90]
    assert (foot.min(axis=-1) < 120).sum() > 40, "words at the foot of the picture"


@needs_gl
def test_a_state_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="a state of this model has 9 \\+ 9 \\+ 1 numbers, got 12"):
        shown(EnvConfig(id="HalfCheetah-v5"), np.zeros((2, 12)), backend="auto")
