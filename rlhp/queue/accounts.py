"""People who may label a run: their names, who of them may correct others, the hashes
of their tokens, and who of them is paused.

A token is 256 random bits, shown once when it is made. Redis holds its sha256 under
`tokens` of the run, so whoever reads the database cannot answer in anybody's name, and
a removed labeler is out with the next request. Nobody is let in without one, on
loopback neither: behind a proxy everybody comes from there.

Nothing is leased to a labeler who is paused; the reason is told to the labeler and to
whoever runs the labelers.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

from rlhp.errors import RlhpError
from rlhp.queue.connection import Connection
from rlhp.queue.records import text
from rlhp.queue.runs import check_name, key, not_open

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOCAL = "local"
"""Who opens the link that a server prints: an admin, since whoever started the server
has the run's Redis anyway.
"""
MOST_LINKS = 16
"""Of servers without a run directory, each of which prints a link of its own; the
oldest is worthless then.
"""
_TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Labeler:
    """Somebody who may answer."""

    name: str
    admin: bool
    """May look at everybody's answers and correct them."""
    made_ms: int = 0
    """Unix milliseconds when the token was made, by the clock of whoever made it."""


class Accounts:
    """Who may label one run.

        token = queue.accounts.add("ann")  # shown to ann once, stored nowhere
        queue.accounts.find(token)  # Labeler(name="ann", admin=False), or None

    Every method raises QueueUnavailable while Redis is away and may then be called
    again.
    """

    def __init__(self, connection: Connection, *, run: str) -> None:
        self._connection, self._run = connection, run
        self._key = key(run, "tokens")

    def add(self, name: str, *, admin: bool = False, replace: bool = False) -> str:
        """Admit a labeler; the token, which cannot be asked for again.

        ValueError for a name that can be none or is taken (`replace` makes its old
        token worthless instead), and where the run was never opened at this Redis.
        """
        if not NAME.fullmatch(name):
            raise RlhpError(
                "the name of a labeler is 1 to 64 letters, digits or . _ -, the first a letter "
                f"or digit; got {name!r}"
            )
        if name == LOCAL:
            raise RlhpError(
                f"the name {name!r} is that of whoever opens the link that rlhp serve prints; "
                "choose another name"
            )
        token, facts = _new(admin=admin)
        with self._connection.client("admit a labeler") as client:
            if not client.exists(key(self._run, "meta")):
                raise not_open(self._run, url=self._connection.url)
            stored = (
                client.hset(self._key, name, facts)
                if replace
                else client.hsetnx(self._key, name, facts)
            )
        if not stored and not replace:
            raise RlhpError(
                f"labeler {name!r} has a token for run {self._run} already; choose another name, "
                f"or remove that one first: rlhp labeler remove {name}"
            )
        return token

    def link(self) -> str:
        """A token for the link that a server prints, whose opener is the admin `local`;
        links printed before stay good.

        The run need not be open yet: a server may be there before the trainer.
        """
        token, facts = _new(admin=True)
        with self._connection.client("make a link") as client:
            client.hset(self._key, f"{LOCAL}:{secrets.token_hex(4)}", facts)
            links = [
                (json.loads(facts)["made_ms"], field)
                for field, facts in self._fields(client)
                if ":" in field
            ]
            for _, field in sorted(links)[:-MOST_LINKS]:
                client.hdel(self._key, field)
        return token

    def remove(self, name: str) -> bool:
        """Make a labeler's token worthless; False where there was none. Answers given
        stay.
        """
        with self._connection.client("remove a labeler") as client:
            fields = [field for field, _ in self._fields(client) if _name(field) == name]
            return bool(fields and client.hdel(self._key, *fields))

    def all(self) -> list[Labeler]:
        """Everybody with a token, by name."""
        return [
            labeler
            for _, labeler in sorted({each.name: each for _, each in self._stored()}.items())
        ]

    def find(self, token: str) -> Labeler | None:
        """Whose token this is; None for nobody's. It takes as long for a token that is
        almost right.
        """
        if not _TOKEN.fullmatch(token):  # Redis is not asked about what can be none
            return None
        wanted, found = _sha256(token), None
        for sha256, labeler in self._stored():
            if hmac.compare_digest(sha256, wanted):
                found = labeler
        return found

    def _stored(self) -> list[tuple[str, Labeler]]:
        with self._connection.client("read who may label") as client:
            return [
                _labeler(_name(field), json.loads(facts)) for field, facts in self._fields(client)
            ]

    def _fields(self, client: Any) -> list[tuple[str, bytes]]:
        """A labeler's name, or `local:` and a random end for each link."""
        return [(text(field), facts) for field, facts in client.hgetall(self._key).items()]


def _new(*, admin: bool) -> tuple[str, str]:
    """A token, and what is stored of it."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    return token, json.dumps(
        {"sha256": _sha256(token), "admin": admin, "made_ms": round(time.time() * 1000)}
    )


def _name(field: str) -> str:
    return field.partition(":")[0]


def _labeler(name: str, facts: dict[str, Any]) -> tuple[str, Labeler]:
    return str(facts["sha256"]), Labeler(
        name=name, admin=bool(facts["admin"]), made_ms=int(facts["made_ms"])
    )


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Pauses:
    """Who is paused in one run. What a paused labeler holds can still be answered until
    its lease runs out.

        queue.pauses.pause("ann", reason="30 of 31 answers were for the same side")
        queue.pauses.reason("ann")  # that text: `lease` now gives ann nothing
        queue.pauses.pardon("ann")  # somebody looked into it: she goes on, for good

    Every method raises QueueUnavailable while Redis is away and may then be called
    again.
    """

    def __init__(self, connection: Connection, *, run: str) -> None:
        self._connection = connection
        self._key = key(run, "paused")

    def pause(self, labeler: str, *, reason: str) -> bool:
        """Lease nothing more to this labeler; False where it is paused already, or was
        pardoned.
        """
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
        """Reasons by name of the paused labelers; an empty reason marks one that was
        pardoned.
        """
        with self._connection.client("look for pauses") as client:
            rows = client.hgetall(self._key)
        return {text(name): text(reason) for name, reason in sorted(rows.items())}
