"""Log lines of every process of a run in its `run.log`, each with the names of run and process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def start_log(file: Path, *, run: str, who: str) -> logging.Handler:
    """Send what this process logs to the file, named."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {run} {who}[{os.getpid()}] %(levelname)s %(message)s"))
    root = logging.getLogger("rlhp")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger(__name__).info("%s starts", who)
    return handler


@contextmanager
def log_to(file: Path, *, run: str, who: str) -> Iterator[None]:
    """The same for the length of a block."""
    handler = start_log(file, run=run, who=who)
    try:
        yield
    finally:
        logging.getLogger("rlhp").removeHandler(handler)
        handler.close()
