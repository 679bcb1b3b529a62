"""Clips of segments, made by a child process that may crash, hang and be started again.

    with Painter(config.env, config.clips) as painter:
        clip = painter.clip(segment)      # clip.data is a WebM

Who holds one needs neither MuJoCo nor OpenGL, and may have imported anything.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from rlhp.config.schema import ClipsConfig, EnvConfig
from rlhp.envs.states import CannotDraw
from rlhp.errors import RlhpError
from rlhp.labeling.clips import gl
from rlhp.labeling.clips.drawing import receive, send
from rlhp.labeling.clips.views import may_be_mujoco
from rlhp.types import Segment, encode

NICENESS = 10
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
        self._process: subprocess.Popen[bytes] | None = None
        self._words: IO[bytes] | None = None
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
            process = self._running()
            try:
                facts, clip = self._ask(process, {}, data, seconds=self._clips.timeout_seconds)
            except (OSError, EOFError):
                why = self._end(process)
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
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End the drawing process."""
        if self._process is not None:
            self._end(self._process)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        if self._process is not None:
            self._end(self._process)
        settings = {
            "env": self._env.model_dump(),
            "clips": self._clips.model_dump(),
            "backend": self._backend(),
        }
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody reads would fill and block
        process = subprocess.Popen(
            [sys.executable, "-m", "rlhp.labeling.clips.drawing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            start_new_session=True,  # Ctrl-C at the terminal is for whoever holds the painter
            # One thread for OpenGL in software: on a busy machine, two of them mostly
            # wait for each other.
            env={
                **os.environ,
                "LP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
        )
        # Never back toward 0, which only an administrator may do.
        os.setpriority(
            os.PRIO_PROCESS, process.pid, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
        )
        self._process = process
        try:
            reply, _ = self._ask(process, settings, b"", seconds=START_SECONDS)
        except (OSError, EOFError):
            reply = {"error": self._end(process)}
        if "error" in reply:
            self._end(process)
            raise PainterBroken(f"clips cannot be drawn: {reply['error']}")
        self.how = reply["how"]
        return process

    def _backend(self) -> gl.Backend:
        """Tried by who holds the painter, once, and not by every drawing process."""
        try:
            return gl.best(self._clips.backend) if may_be_mujoco(self._env) else "schematic"
        except ValueError as error:
            raise PainterBroken(f"clips cannot be drawn: {error}") from None

    def _ask(
        self,
        process: subprocess.Popen[bytes],
        header: dict[str, Any],
        data: bytes,
        *,
        seconds: float,
    ) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        with _killed_after(process, seconds):
            send(process.stdin, header, data)  # type: ignore[arg-type]  # a Popen's pipes are buffered binary files
            return receive(process.stdout)  # type: ignore[arg-type]

    def _end(self, process: subprocess.Popen[bytes]) -> str:
        """Close its input, wait or kill; its exit code and last words."""
        self._process = None
        with suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
        lines: list[str] = []
        if self._words is not None:
            self._words.seek(0)
            lines = self._words.read().decode(errors="replace").strip().splitlines()
            self._words.close()
            self._words = None
        return f"exit code {process.returncode}{f', {lines[-1]}' if lines else ''}"


@contextmanager
def _killed_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
