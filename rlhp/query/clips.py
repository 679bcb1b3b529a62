"""Videos of queries, kept beside the queue for whoever shows them."""

from __future__ import annotations

from typing import Literal, cast

from rlhp.query.connection import Connection
from rlhp.query.runs import check_name, key

UNREADY_SECONDS = 600
"""A clip goes after this, unless the queue's `ready` made it stay until half an hour after its query."""

Side = Literal["first", "second"]


class Clips:
    """Clips of one run: store both, then `QueryQueue.ready` offers the query to labelers."""

    def __init__(self, url: str, *, run: str) -> None:
        check_name("run", run)
        self._run = run
        self._connection = Connection(url, prefix=key(run, ""), timeout_seconds=5)

    def store(self, *, query: str, side: Side, data: bytes) -> None:
        """Keep the encoded video of one side."""
        with self._connection.client("store a clip") as client:
            client.set(key(self._run, f"clip:{query}:{side}"), data, ex=UNREADY_SECONDS)

    def fetch(self, *, query: str, side: Side) -> bytes | None:
        """The encoded video of one side; None where there is none (any more)."""
        with self._connection.client("fetch a clip") as client:
            return cast("bytes | None", client.get(key(self._run, f"clip:{query}:{side}")))
