"""A run does not end because nobody reads what it prints.

`rlhp train CONFIG | head` closes the pipe, and a log that is written to a full disk
takes no more. Whoever prints next would get an OSError, or be ended without a word. In
`outliving` that stream is given up instead, and it is said once, on the other stream
and in the run's log.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)


class _Outliving:
    """A stream whose failures end it, and not its writers."""

    def __init__(self, stream: Any, name: str, tell: Callable[[str], None]) -> None:
        self._stream, self._name, self._tell = stream, name, tell

    def write(self, text: str) -> int:
        return int(self._try(lambda: self._stream.write(text), len(text)))

    def flush(self) -> None:
        self._try(self._stream.flush, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, act: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return act()
        except OSError as error:
            # What is printed from now on goes nowhere, and so does what still lies in
            # the buffer.
            number = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:  # which it is where somebody's code has closed that descriptor
                os.dup2(nowhere, number)
                os.close(nowhere)
            self._say(
                "nobody reads it any more" if error.errno == errno.EPIPE else str(error.strerror)
            )
        except ValueError:  # somebody's code has closed it
            if not self._stream.closed:
                raise
            self._stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for the rest of the process
            self._say("it was closed by other code in this process")
        return otherwise

    def _say(self, why: str) -> None:
        self._tell(
            f"{self._name} is given up, {why}; the run goes on, and its directory has run.log and "
            "metrics.jsonl"
        )


@contextmanager
def outliving() -> Iterator[None]:
    """Standard output and error that fail do not end this block."""
    before = sys.stdout, sys.stderr

    def tell(text: str) -> None:
        if logging.getLogger("rlhp").handlers:
            log.warning("%s", text)
        print(text, file=sys.stderr)

    # as much of a stream as printing needs
    out: Any = _Outliving(before[0], "standard output", tell)
    err: Any = _Outliving(before[1], "standard error", lambda text: log.warning("%s", text))
    sys.stdout, sys.stderr = out, err
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before
