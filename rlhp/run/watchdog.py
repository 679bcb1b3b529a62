"""A watchdog notices a learner's side that is there and does nothing: RLlib would wait
for it for minutes, or for ever.

    with watchdog.watching(learner.abandon):
        learner.train()
    watchdog.progressed()  # env steps were made

A process that was stopped, a torn connection that nobody closed, an environment that
hangs: none of them is an error, and from outside none can be told from work that takes
long. So the rule is time without a single new env step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 1.0


class Stalled(RuntimeError):
    """No env step was made for too long, and whatever may have been in the way was
    killed.
    """


class StallWatchdog:
    """Calls `abandon` of what it watches when that has made no progress for
    `stall_seconds`; None: it never does.

    Time counts only while something is watched, over as many calls as it takes, and not
    while `excuse` names what is rightly waited for.
    """

    def __init__(
        self, stall_seconds: float | None, *, excuse: Callable[[], str | None] = lambda: None
    ) -> None:
        self._stall_seconds = stall_seconds
        self._excuse = excuse
        self._lock = threading.Lock()
        self._since: float | None = None  # None while nothing is watched
        self._fruitless = 0.0
        self._abandon: Callable[[], None] = lambda: None
        self._stalled: str | None = None
        self._closed = threading.Event()
        if stall_seconds is not None:
            threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self, abandon: Callable[[], None]) -> Iterator[None]:
        """Stalled at the end of the block if it was given up; an error that came of
        that is its cause.
        """
        with self._lock:
            self._abandon, self._stalled = abandon, None
            self._since = time.monotonic() - self._fruitless
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        with self._lock:
            since, self._since = self._since, None
            self._fruitless = 0.0 if self._stalled or since is None else time.monotonic() - since
        if self._stalled is not None:
            raise Stalled(self._stalled) from failure
        if failure is not None:
            raise failure

    def progressed(self) -> None:
        """Time counts anew."""
        self._fruitless = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Watch no more."""
        self._closed.set()

    def _run(self) -> None:
        assert self._stall_seconds is not None
        excused = False
        while not self._closed.wait(min(LOOK_EVERY_SECONDS, self._stall_seconds / 4)):
            since = self._since
            if since is None or time.monotonic() - since < self._stall_seconds:
                continue
            reason = self._excuse()
            if reason is not None and not excused:
                log.warning("no env step for %.0f s: %s", self._stall_seconds, reason)
            excused = reason is not None
            with self._lock:
                if self._since != since:
                    continue  # it has just ended, or begun anew
                if excused:
                    self._since = time.monotonic()
                    continue
                self._stalled = (
                    f"no env step for {self._stall_seconds:g} s (ray.stall_seconds): a process or "
                    "a node is gone, or the environment hangs or ends its process each time"
                )
                self._since = None  # given up once
                abandon = self._abandon
            log.warning("%s: env runners and learners are killed", self._stalled)
            with suppress(Exception):
                abandon()
