"""Frames to videos and back."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from rlhp.labeling.clips.video import Codec, encode, first_frame
from rlhp.queue.clips import media_type
from rlhp.types import Array

CODECS: tuple[Codec, ...] = ("vp9", "h264", "apng")


def moving_square(count: int = 12, *, height: int = 64, width: int = 96) -> Array:
    """A red square that walks over a blue gradient."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 2] = np.linspace(40, 200, width, dtype=np.uint8)
    for k in range(count):
        frames[k, 20:36, 4 * k : 4 * k + 16] = (220, 30, 30)
    return frames


def decoded(data: bytes) -> Array:
    with av.open(io.BytesIO(data), mode="r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def error(one: Array, other: Array) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


@pytest.mark.parametrize("codec", CODECS)
def test_every_frame_comes_back_in_its_place(codec: Codec) -> None:
    frames = moving_square()
    back = decoded(encode(frames, fps=20, codec=codec))
    assert back.shape == frames.shape
    for k, frame in enumerate(back):
        assert error(frame, frames[k]) < 6
        assert k == min(range(len(frames)), key=lambda other: error(frame, frames[other]))


@pytest.mark.parametrize("codec", CODECS)
def test_the_video_plays_at_the_speed_asked_for(codec: Codec) -> None:
    with av.open(io.BytesIO(encode(moving_square(10), fps=40, codec=codec)), mode="r") as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert np.allclose(np.diff(times), 1 / 40, atol=2e-3)


@pytest.mark.parametrize("codec", CODECS)
def test_an_odd_edge_is_repeated_once(codec: Codec) -> None:
    assert first_frame(
        encode(moving_square(2, height=63, width=95), fps=20, codec=codec)
    ).shape == (64, 96, 3)


@pytest.mark.parametrize("codec", CODECS)
def test_the_first_frame_can_be_looked_at(codec: Codec) -> None:
    frames = moving_square()
    assert error(first_frame(encode(frames, fps=20, codec=codec)), frames[0]) < 6


def test_browsers_are_told_what_it_is() -> None:
    kinds = [media_type(encode(moving_square(2), fps=20, codec=codec)) for codec in CODECS]
    assert kinds == ["video/webm", "video/mp4", "image/png"]
    with pytest.raises(
        ValueError, match="neither WebM, MP4 nor PNG: 5 bytes that start with b'hello'"
    ):
        media_type(b"hello")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_video_that_ends_before_its_first_frame_does_not_play(codec: Codec, share: float) -> None:
    data = encode(
        np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8), fps=20, codec=codec
    )
    with pytest.raises(ValueError, match="does not play"):
        first_frame(data[: int(share * len(data))])


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
    ],
    ids=["none", "gray", "floats"],
)
def test_what_is_no_film_is_refused(frames: Array) -> None:
    with pytest.raises(
        ValueError, match=r"a video is uint8 \[T, H, W, 3\] with at least one frame, got"
    ):
        encode(frames, fps=20)
