"""The numbers of a run for TensorBoard, written by whoever calls.

tensorboardX's own writer has a thread behind a short queue: where a full disk ended
that thread, the next row would wait for ever.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from rlhp.files import naming

FLUSH_SECONDS = 30.0


class TensorBoard:
    """One file of events in `directory`."""

    def __init__(self, directory: Path, *, purge_step: int | None = None) -> None:
        """From `purge_step` on TensorBoard hides what other files there say."""
        self._directory = directory
        self._flushed = time.monotonic()
        with naming(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._file: Any = EventsWriter(str(directory / "events"))
            if purge_step is not None:
                self._write(step=purge_step, file_version="brain.Event:2")
                self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, row: Mapping[str, Any], *, step: int | None) -> None:
        """The numbers of a row."""
        with naming(self._directory):
            for name, value in row.items():
                if isinstance(value, (int, float)):
                    self._write(step=step or 0, summary=scalar(name, value))
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._file.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush; a second call does nothing."""
        file, self._file = self._file, None
        if file is not None:
            with naming(self._directory):
                file.close()

    def _write(self, **content: Any) -> None:
        self._file.write_event(Event(wall_time=time.time(), **content))
