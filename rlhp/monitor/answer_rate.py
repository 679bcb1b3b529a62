"""Answers per minute, for the metrics of a run and for the page, which has no torch."""

from __future__ import annotations

import threading
import time
from collections import deque

OVER_SECONDS = 60.0
EVERY_SECONDS = 0.5
"""Counts of one minute are remembered, and no two of one half second."""


class AnswerRate:
    """Answers per minute over the last minute, as far as it was called in that; any
    number of threads may call it.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def __call__(self, answered: int) -> float:
        now = time.monotonic()
        with self._lock:
            if not self._seen or now - self._seen[-1][0] >= EVERY_SECONDS:
                self._seen.append((now, answered))
            while now - self._seen[0][0] > OVER_SECONDS and len(self._seen) > 1:
                self._seen.popleft()
            first_at, first = self._seen[0]
        if now - first_at <= 1:
            return 0.0
        return 60.0 * max(0, answered - first) / (now - first_at)
