"""Clips of segments, made by a child process that may crash, hang and be started again.

    with Painter(config.env, config.clips) as painter:
        clip = painter.clip(segment)      # clip.data is a WebM

Who holds one needs neither MuJoCo nor OpenGL, and may have imported anything.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rlhp.config.schema import ClipsConfig, EnvConfig
from rlhp.envs.states import CannotDraw
from rlhp.errors import RlhpError
from rlhp.labeling.clips import gl
from rlhp.labeling.clips.drawing import receive, send
from rlhp.labeling.clips.views import may_be_mujoco
from rlhp.system.processes import Child
from rlhp.types import Segment, encode

START_SECONDS = 120.0
"""For imports, a trial of each OpenGL backend and the environment, on a machine that is
busy.
"""


class PainterBroken(RlhpError, ChildProcessError):
    """No drawing process can be had: what its last words were."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One segment as a video."""

    data: bytes
    how: str
    """What drew it."""
    fps: int
    frames: int
    width: int
    height: int
    draw_ms: float
    draw_cpu_ms: float
    """The same in CPU time, over all threads: on a busy machine the truer figure."""
    encode_ms: float


class Painter:
    """One drawing process at a time, started with the first clip. For one thread."""

    def __init__(self, env: EnvConfig, clips: ClipsConfig) -> None:
        self._env, self._clips = env, clips
        # One thread for OpenGL in software: on a busy machine, two of them mostly wait
        # for each other.
        path = os.pathsep.join(filter(None, sys.path))
        self._process = Child(
            [sys.executable, "-m", "rlhp.labeling.clips.drawing"],
            talks=True,
            env={"LP_NUM_THREADS": "1", "PYTHONPATH": path},
            stands_back=True,
        )
        self._there = False
        self.how = ""
        """What draws; known with the first clip."""

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def clip(self, segment: Segment | bytes) -> Clip:
        """The clip of a segment, given whole or encoded.

        CannotDraw where this segment cannot be shown, or takes a drawing process down
        or longer than `clips.timeout_seconds`, twice; PainterBroken where no drawing
        process can be started.
        """
        data = segment if isinstance(segment, bytes) else encode(segment)
        for last in (False, True):
            self._keep_running()
            try:
                facts, clip = self._ask({}, data, seconds=self._clips.timeout_seconds)
            except (OSError, EOFError):
                why = self._end()
                if last:
                    raise CannotDraw(f"the drawing process ended over it, twice: {why}") from None
                continue
            if "error" in facts:
                raise CannotDraw(facts["error"])
            return Clip(data=clip, how=self.how, **facts)
        raise AssertionError("the second try returns or raises")

    @property
    def pid(self) -> int | None:
        """Of the drawing process, where there is one."""
        return self._process.pid if self._there else None

    def close(self) -> None:
        """End the drawing process."""
        if self._there:
            self._end()

    def _keep_running(self) -> None:
        if self._there and self._process.poll() is None:
            return
        self.close()
        settings = {
            "env": self._env.model_dump(),
            "clips": self._clips.model_dump(),
            "backend": self._backend(),
        }
        self._process.start()
        self._there = True
        try:
            reply, _ = self._ask(settings, b"", seconds=START_SECONDS)
        except (OSError, EOFError):
            reply = {"error": self._end()}
        if "error" in reply:
            self.close()
            raise PainterBroken(f"clips cannot be drawn: {reply['error']}")
        self.how = reply["how"]

    def _backend(self) -> gl.Backend:
        """Tried by who holds the painter, once, and not by every drawing process."""
        try:
            return gl.best(self._clips.backend) if may_be_mujoco(self._env) else "schematic"
        except ValueError as error:
            raise PainterBroken(f"clips cannot be drawn: {error}") from None

    def _ask(
        self, header: dict[str, Any], data: bytes, *, seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        with _killed_after(self._process, seconds):
            send(self._process.stdin, header, data)  # type: ignore[arg-type]  # a Popen's pipes are buffered binary files
            return receive(self._process.stdout)  # type: ignore[arg-type]

    def _end(self) -> str:
        """Close its input, wait or kill; its exit code and last words."""
        self._there = False
        code = self._process.end(grace_seconds=5)
        said = f", {self._process.last_words()}" if self._process.said().strip() else ""
        return f"exit code {code}{said}"


@contextmanager
def _killed_after(process: Child, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
