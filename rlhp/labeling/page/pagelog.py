"""What a server writes to its log: a line of each kind once a minute, however often it comes up.

Whoever reaches the page can make it warn. The number of lines must not be theirs to choose.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

EVERY_SECONDS = 60.0
LONGEST_LINE = 1000


class Seldom(logging.Filter):
    """Lets a line of one place in the code, and of one kind of error, pass once in a while, and counts the others."""

    def __init__(self, *, every_seconds: float = EVERY_SECONDS) -> None:
        super().__init__()
        self._every = every_seconds
        self._passed: dict[tuple[str, int, type[BaseException] | None], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one passes; its message then says how many did not."""
        key = (record.pathname, record.lineno, record.exc_info[0] if record.exc_info else None)
        at, held_back = self._passed.get(key, (-math.inf, 0))
        if record.created - at < self._every:
            self._passed[key] = (at, held_back + 1)
            return False
        self._passed[key] = (record.created, 0)
        text = record.getMessage()[:LONGEST_LINE]
        record.msg, record.args = f"{text} ({held_back} more like it since)" if held_back else text, ()
        return True


@contextmanager
def to_stderr() -> Iterator[None]:
    """Warnings of this process for the length of a block, uvicorn's and asyncio's included."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.addFilter(Seldom())
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
