"""Frames to the bytes of a video that browsers play, and back for a check: all in
memory.

VP9 in WebM unless asked otherwise: no royalties, and every present browser plays it.
Figures: docs/benchmarks.md.

Shapes: T frames of H x W pixels, RGB, uint8.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np

from rlhp.errors import RlhpError
from rlhp.queue.clips import media_type
from rlhp.types import Array

Codec = Literal["vp9", "h264", "apng"]
QUALITY = "32"
"""The rate factor of VP9 and H.264: a lower one is better and larger."""
_CONTAINER = {"vp9": "webm", "h264": "mp4"}
_ENCODER = {"vp9": "libvpx-vp9", "h264": "libx264"}
# One thread: clips are made beside the env runners, which need the cores.
_OPTIONS = {
    # Constant quality wants b=0; cpu-used 8 in realtime mode is several times faster
    # than the default.
    "vp9": {"b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "0"},
    "h264": {"preset": "veryfast"},
}
# A fragmented file can be written in one go; `faststart` would open it again by name.
_MUXER = {"vp9": {}, "h264": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}


def encode(frames: Array, *, fps: int, codec: Codec = "vp9") -> bytes:
    """[T, H, W, 3] -> the whole file. An odd edge is repeated once: half of the codecs
    want even sizes.

    ValueError for anything that is no video, and where PyAV is missing (animated PNG
    needs none).
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise RlhpError(
            f"a video is uint8 [T, H, W, 3] with at least one frame, got {frames.dtype} "
            f"{frames.shape}"
        )
    frames = np.pad(
        frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge"
    )
    return _apng(frames, fps) if codec == "apng" else _film(frames, fps, codec)


def first_frame(data: bytes) -> Array:
    """[H, W, 3] of an encoded video; ValueError where it cannot be played from its
    start.
    """
    try:
        if media_type(data) == "image/png":
            from PIL import Image

            with Image.open(io.BytesIO(data)) as image:
                return np.asarray(image.convert("RGB"))
        with _av().open(io.BytesIO(data)) as container:
            frame: Array = next(container.decode(video=0)).to_ndarray(format="rgb24")
            return frame
    # PyAV's errors are OSErrors
    except (OSError, StopIteration, IndexError, EOFError, SyntaxError) as error:
        raise RlhpError(f"this video of {len(data)} bytes does not play: {error}") from error


def _film(frames: Array, fps: int, codec: Literal["vp9", "h264"]) -> bytes:
    av = _av()
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format=_CONTAINER[codec], options=_MUXER[codec]) as container:
        options = {**_OPTIONS[codec], "crf": QUALITY}
        stream = container.add_stream(_ENCODER[codec], rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _apng(frames: Array, fps: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(
        buffer,
        format="PNG",
        save_all=True,
        append_images=images[1:],
        duration=1000 / fps,
        loop=0,
        default_image=False,
    )
    return buffer.getvalue()


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise RlhpError(
            "clips are made with PyAV, which is not installed; pip install av, or set "
            "clips.codec=apng"
        ) from None
    return av
