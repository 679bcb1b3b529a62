"""Labelers to whom nothing is leased, each with the reason that they and whoever runs them are told."""

from __future__ import annotations

from rlhp.query.connection import Connection
from rlhp.query.records import text
from rlhp.query.runs import check_name, key


class Pauses:
    """Who is paused in one run. What a paused labeler holds can still be answered until its lease runs out.

    pauses = Pauses(url, run="cheetah")
    pauses.pause("ann", reason="30 of 31 answers were for the same side")
    pauses.reason("ann")  # that text: `lease` now gives ann nothing
    pauses.pardon("ann")  # somebody looked into it: she goes on, and is not paused again

    Every method raises QueueUnavailable while Redis is away and may then be called again.
    """

    def __init__(self, url: str, *, run: str) -> None:
        """Connects to nothing yet; ValueError for a URL or a name that can be none."""
        check_name("run", run)
        self._key = key(run, "paused")
        self._connection = Connection(url, prefix=key(run, ""), timeout_seconds=5)

    def pause(self, labeler: str, *, reason: str) -> bool:
        """Lease nothing more to this labeler; False where it is paused already, or was pardoned."""
        check_name("labeler", labeler)
        if not reason:
            raise ValueError(f"a pause needs a reason that {labeler} can be told, got an empty one")
        with self._connection.client("pause a labeler") as client:
            return bool(client.hsetnx(self._key, labeler, reason))

    def pardon(self, labeler: str) -> None:
        """Lease to this labeler again, whatever its figures are and become."""
        check_name("labeler", labeler)
        with self._connection.client("pardon a labeler") as client:
            client.hset(self._key, labeler, "")

    def reason(self, labeler: str) -> str | None:
        """Why nothing is leased to this labeler; None where it may work."""
        with self._connection.client("look for a pause") as client:
            found = client.hget(self._key, labeler)
        return text(found) or None if found is not None else None

    def all(self) -> dict[str, str]:
        """Reasons by name of the paused labelers; an empty reason marks one that was pardoned."""
        with self._connection.client("look for pauses") as client:
            rows = client.hgetall(self._key)
        return {text(name): text(reason) for name, reason in sorted(rows.items())}

    def close(self) -> None:
        """Close this process's connections."""
        self._connection.close()
