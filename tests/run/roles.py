"""A role as a Ray actor that can be told how to be."""

from __future__ import annotations

import os
from typing import Any

import ray


class Told:
    """Says what it was told; its constructor fails while `flag` is a file."""

    def __init__(self, flag: str = "", **status: Any) -> None:
        if flag and os.path.exists(flag):
            raise ValueError("part-00000000.parquet is damaged; move that file away")
        self._status = status
        self._progress: list[Any] = []

    def tell(self, **status: Any) -> None:
        """Change what it says."""
        self._status |= status

    def progress(self, *args: Any, **facts: Any) -> None:
        """Remember how far the run is."""
        self._progress.append([*args, facts])

    def status(self) -> dict[str, Any]:
        """What it was told, how far it thinks the run is, and who it is."""
        return {**self._status, "progress": self._progress, "pid": os.getpid()}


def told(*, flag: Any = "", **status: Any) -> Any:
    """A role that answers when this returns."""
    remote = ray.remote(num_cpus=0, max_restarts=-1, concurrency_groups={"control": 1})(Told)
    actor = remote.remote(flag, **status)
    ray.get(actor.status.remote())
    return actor
