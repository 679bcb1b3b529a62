"""People who may label a run: their names, who of them may correct others, and the hashes of their tokens.

A token is 256 random bits, shown once when it is made. Redis holds its sha256 under `tokens` of the run, so whoever
reads the database cannot answer in anybody's name, and a removed labeler is out with the next request.
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
from rlhp.query.connection import Connection
from rlhp.query.records import text
from rlhp.query.runs import check_name, key, not_open

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOCAL = "local"
"""Who everybody is while a run has no tokens: its server then listens on this machine alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labeler:
    """Somebody who may answer."""

    name: str
    admin: bool
    """May look at everybody's answers and correct them."""
    made_ms: int = 0
    """Unix milliseconds when the token was made, by the clock of whoever made it."""


class Labelers:
    """Who may label one run.

    token = Labelers(url, run="cheetah").add("ann")       # shown to ann once, stored nowhere
    Labelers(url, run="cheetah").find(token)              # Labeler(name="ann", admin=False), or None

    Every method raises QueueUnavailable while Redis is away and may then be called again.
    """

    def __init__(self, url: str, *, run: str) -> None:
        """Connects to nothing yet; ValueError for a URL or a name that can be none."""
        check_name("run", run)
        self._url, self._run = url, run
        self._key = key(run, "tokens")
        self._connection = Connection(url, prefix=key(run, ""), timeout_seconds=5)

    def add(self, name: str, *, admin: bool = False, replace: bool = False) -> str:
        """Admit a labeler; the token, which cannot be asked for again.

        ValueError for a name that can be none or is taken (`replace` makes its old token worthless instead), and
        where the run was never opened at this Redis.
        """
        if not NAME.fullmatch(name):
            raise RlhpError(
                f"the name of a labeler is 1 to 64 letters, digits or . _ -, the first a letter or digit; got {name!r}"
            )
        token = secrets.token_urlsafe(32)
        facts = json.dumps({"sha256": _sha256(token), "admin": admin, "made_ms": round(time.time() * 1000)})
        with self._connection.client("admit a labeler") as client:
            if not client.exists(key(self._run, "meta")):
                raise not_open(self._run, url=self._url)
            stored = client.hset(self._key, name, facts) if replace else client.hsetnx(self._key, name, facts)
        if not stored and not replace:
            raise RlhpError(
                f"labeler {name!r} has a token for run {self._run} already; choose another name, or remove that one "
                f"first: rlhp labeler remove {name}"
            )
        return token

    def remove(self, name: str) -> bool:
        """Make a labeler's token worthless; False where there was none. Answers given stay."""
        with self._connection.client("remove a labeler") as client:
            return bool(client.hdel(self._key, name))

    def all(self) -> list[Labeler]:
        """Everybody with a token, by name."""
        return [labeler for _, labeler in sorted(self._stored(), key=lambda pair: pair[1].name)]

    def find(self, token: str) -> Labeler | None:
        """Whose token this is; None for nobody's. It takes as long for a token that is almost right."""
        wanted, found = _sha256(token), None
        for sha256, labeler in self._stored():
            if hmac.compare_digest(sha256, wanted):
                found = labeler
        return found

    def any(self) -> bool:
        """Whether anybody has a token: without, a server may not listen beyond its own machine."""
        with self._connection.client("look for labelers") as client:
            return bool(client.exists(self._key))

    def close(self) -> None:
        """Close this process's connections."""
        self._connection.close()

    def _stored(self) -> list[tuple[str, Labeler]]:
        with self._connection.client("read who may label") as client:
            rows = client.hgetall(self._key)
        return [_labeler(text(name), json.loads(facts)) for name, facts in rows.items()]


def _labeler(name: str, facts: dict[str, Any]) -> tuple[str, Labeler]:
    return str(facts["sha256"]), Labeler(name=name, admin=bool(facts["admin"]), made_ms=int(facts["made_ms"]))


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
