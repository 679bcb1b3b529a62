"""Runs a role at its own pace: a thread that steps it, a snapshot of its status, and no silent death.

A lost connection is waited out with back-off and one line at loss and return; any other error is fatal to
the run and kept for the driver, which asks for `status` and stops with that line.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from rlhp.errors import curable, one_line, root

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 5.0


class Role(Protocol):
    """Something with a status."""

    def status(self) -> dict[str, Any]: ...


class Background:
    """Steps `role` until stopped. `step` says whether there was anything to do."""

    def __init__(self, role: Role, step: Callable[[], Any], *, name: str, pause_seconds: float = 0.0) -> None:
        """`pause_seconds` lie between two steps, busy or not: what a role does in one go costs less than in ten."""
        self._pause_seconds = pause_seconds
        self._role = role
        self._step = step
        self._name = name
        self._stop = threading.Event()
        self._news = threading.Event()
        self._status: dict[str, Any] = role.status()
        self._fatal: str | None = None
        self._ours = False
        self._waiting: str | None = None
        self._beat = time.time()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """The role's last snapshot, plus `fatal` (its error or None), `ours` (whether that is a fault of this
        program), `waiting_for` and `beat` (unix seconds)."""
        return {
            **self._status,
            "fatal": self._fatal,
            "ours": self._ours,
            "waiting_for": self._waiting,
            "beat": self._beat,
        }

    def wake(self) -> None:
        """There is news for the role: its next step is now, whatever pause it is in."""
        self._news.set()

    def stop(self, timeout_seconds: float = 10.0) -> bool:
        """Ask the thread to end after its present step, and wait for it; whether it did."""
        self._stop.set()
        self._news.set()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = IDLE_SECONDS
        while not self._stop.is_set():
            try:
                busy = self._step()
                self._status = self._role.status()
            except ConnectionError as error:
                if self._waiting is None:
                    log.warning("%s waits: %s", self._name, error)
                self._waiting = str(error)
                pause = min(LONGEST_BACKOFF_SECONDS, pause * 2)
                self._stop.wait(pause)
                continue
            except Exception as error:
                log.exception("%s stopped", self._name)
                first = root(error)
                self._ours = not curable(first)
                self._fatal = f"{self._name}: {one_line(first) if self._ours else first}"
                return
            if self._waiting is not None:
                log.warning("%s goes on", self._name)
            self._waiting, pause, self._beat = None, IDLE_SECONDS, time.time()
            if self._pause_seconds or not busy:
                self._news.wait(max(self._pause_seconds, 0.0 if busy else IDLE_SECONDS))
            self._news.clear()
