"""The process that draws: `python -m rlhp.labeling.clips.drawing`, one segment in, one
clip out, until its input ends.

A process of its own, since MuJoCo fixes its OpenGL backend at import and a graphics
driver may crash or hang: then only this one dies, and `rlhp.labeling.clips.painter`
starts another. Messages both ways are a JSON header and bytes, each with its length in
front. The first tells which environment, how to draw and how to encode.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from typing import Any, BinaryIO

from rlhp.config.schema import ClipsConfig, EnvConfig
from rlhp.envs.states import CannotDraw
from rlhp.labeling.clips.video import encode, first_frame
from rlhp.labeling.clips.views import View, make_view
from rlhp.types import DecodeError, decode

_LENGTHS = struct.Struct("<II")
BLANK = 1.0
"""Standard deviation of a clip's pixels, of 255, below which there is nothing to be
seen in it.
"""


def send(stream: BinaryIO, header: dict[str, Any], data: bytes = b"") -> None:
    """One message."""
    head = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(head), len(data)) + head + data)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """The next message; EOFError where the other side has gone."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        raise EOFError("the other side has gone")
    head, data = _LENGTHS.unpack(lengths)
    body = stream.read(head + data)
    if len(body) < head + data:
        raise EOFError("the other side went in the middle of a message")
    return json.loads(body[:head]), body[head:]


def draw(view: View, clips: ClipsConfig, *, segment_bytes: bytes) -> tuple[dict[str, Any], bytes]:
    """The clip of one encoded segment, with its figures; CannotDraw where there is
    nothing to be seen.
    """
    started, busy = time.perf_counter(), time.process_time()
    try:
        frames = view.frames(decode(segment_bytes))
    except DecodeError as error:
        raise CannotDraw(str(error)) from error
    drawn, busy = time.perf_counter(), time.process_time() - busy
    if frames.std() < BLANK:
        raise CannotDraw("every frame is the same single color")
    data = encode(frames, fps=view.fps, codec=clips.codec)
    encoded = time.perf_counter()
    shape = first_frame(data).shape  # what a browser would meet first
    facts = {
        "fps": view.fps,
        "frames": len(frames),
        "height": shape[0],
        "width": shape[1],
        "draw_ms": 1e3 * (drawn - started),
        "draw_cpu_ms": 1e3 * busy,
        "encode_ms": 1e3 * (encoded - drawn),
    }
    return facts, data


def main() -> None:
    """Serve whoever started this process."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an environment prints must not get between messages
    settings, _ = receive(requests)
    clips = ClipsConfig.model_validate(settings["clips"])
    try:
        view = make_view(
            EnvConfig.model_validate(settings["env"]), clips, backend=settings["backend"]
        )
    except ValueError as error:
        send(replies, {"error": str(error)})
        return
    send(replies, {"how": view.how})
    while True:
        try:
            _, segment_bytes = receive(requests)
        except EOFError:
            break
        try:
            facts, data = draw(view, clips, segment_bytes=segment_bytes)
        # an environment of the user's may raise anything; the next segment may be fine
        except Exception as error:
            known = isinstance(error, CannotDraw)
            send(replies, {"error": str(error) if known else f"{type(error).__name__}: {error}"})
            continue
        send(replies, facts, data)
    view.close()


if __name__ == "__main__":
    main()
