"""Log lines of every process of a run in its `run.log`, each with the names of run and
process.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOGGED = "traceback in "


def log_with_traceback(error: BaseException) -> Path | None:
    """The log that `log_to` wrote this exception's traceback to; None where it did not."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(_LOGGED)]
    return Path(notes[-1].removeprefix(_LOGGED)) if notes else None


class _LogFile(logging.FileHandler):
    """A line that cannot be written does not become a traceback on the terminal, one
    for each.
    """

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            print(f"{self.baseFilename} takes no more lines: {error.strerror}", file=sys.stderr)


class _Teller(logging.Handler):
    """Hands each line to somebody who shows it."""

    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(f"warning: {record.getMessage()}")


@contextmanager
def told(say: Callable[[str], object], *loggers: str) -> Iterator[None]:
    """What these loggers warn of in this block, whoever watches the terminal hears as
    well.
    """
    teller = _Teller(say)
    for name in loggers:
        logging.getLogger(name).addHandler(teller)
    try:
        yield
    finally:
        for name in loggers:
            logging.getLogger(name).removeHandler(teller)


def start_log(file: Path, *, run: str, who: str) -> logging.Handler:
    """Send what this process logs to the file, named."""
    handler = _LogFile(file)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s {run} {who}[{os.getpid()}] %(levelname)s %(message)s")
    )
    root = logging.getLogger("rlhp")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger(__name__).info("%s starts", who)
    return handler


@contextmanager
def log_to(file: Path, *, run: str, who: str) -> Iterator[None]:
    """The same for the length of a block, and with its traceback what ended it."""
    handler = start_log(file, run=run, who=who)
    try:
        yield
    except Exception as error:
        logging.getLogger(__name__).error("%s ends with an error", who, exc_info=True)
        error.add_note(f"{_LOGGED}{file}")
        raise
    finally:
        logging.getLogger("rlhp").removeHandler(handler)
        handler.close()
