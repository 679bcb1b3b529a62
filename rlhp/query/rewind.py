"""The queue as it was when nothing was open: for a serial run that goes on from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

from rlhp.query.connection import Connection
from rlhp.query.reader import GROUP
from rlhp.query.records import text
from rlhp.query.runs import key


class QueueHistory:
    """The counters of one run's queue, and the way back to them.

    Whatever a query was is in the dataset once it is settled; a queue without open queries is its counters alone.
    Every method raises QueueUnavailable while Redis is away and may then be called again. A rewind is for the `owner`.
    """

    def __init__(self, url: str, *, run: str, owner: str = "") -> None:
        self._key = key(run, "")
        self._connection = Connection(url, prefix=self._key, timeout_seconds=5, owner=owner)

    def counters(self) -> dict[str, int]:
        """All counts as the scripts keep them."""
        with self._connection.client("read the counters") as client:
            return {text(name): int(value) for name, value in client.hgetall(f"{self._key}counts").items()}

    def rewind(self, counters: Mapping[str, int]) -> None:
        """Forget every query, and count from here. What the log still holds must be on disk."""
        self._connection.script("check")
        with self._connection.client("rewind the queue") as client:
            kept = {f"{self._key}meta".encode(), f"{self._key}paused".encode()}
            names = [name for name in client.scan_iter(match=f"{self._key}*", count=1000) if name not in kept]
            with client.pipeline(transaction=True) as pipe:
                for at in range(0, len(names), 1000):
                    pipe.delete(*names[at : at + 1000])
                if counters:
                    pipe.hset(f"{self._key}counts", mapping=dict(counters))
                pipe.xgroup_create(f"{self._key}answers", GROUP, id="0", mkstream=True)
                pipe.execute()

    def close(self) -> None:
        """Close this process's connections."""
        self._connection.close()
