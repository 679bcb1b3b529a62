"""The one door to Redis: clients that survive forks and restarts, scripts, and one
error for `server away`.

redis-py retries a call whose reply was lost, so whatever goes through `script` must be
idempotent.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any

import redis
from redis import exceptions
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from rlhp.config import addresses
from rlhp.errors import UNREADABLE, RlhpError, Unreachable, one_line
from rlhp.storage.lease import Owner, taken_over

RETRIES = 4
"""Over about a second: a server that is restarted at once is not even noticed."""
_AWAY = (
    "MISCONF",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "NOAUTH",
    "READONLY",
    "LOADING",
    "BUSY",
    "TRYAGAIN",
    "NOREPLICAS",
    "ClusterDownError",
    "MasterDownError",
    "TryAgainError",
)
"""Of a server that will take the same command later."""


class QueueUnavailable(Unreachable):
    """Redis cannot be reached or cannot serve now: what was tried, where, and the way
    out, in one line.
    """


class Refused(RlhpError):
    """Redis is there and does not do what it is asked, now or later; the same line."""


class OutOfMemory(QueueUnavailable):
    """The server is at its memory limit."""


class NoSuchGroup(LookupError):
    """The answer log has no readers' group: the run was never opened."""


class Connection:
    """One process's way to one server, built at first use and again after a fork."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        timeout_seconds: float,
        owner: str = "",
        retries: int = RETRIES,
    ) -> None:
        """Connects to nothing yet; ValueError for a URL that can be none.

        `owner`: the token that is shown with every script. Once another owner's is in
        force, all of them raise TakenOver and do nothing.
        """
        self.url = url
        self.owner = owner
        self._retries = retries
        self._prefix = prefix
        self._timeout_seconds = timeout_seconds
        self._client: Any = None
        self._client_of = 0
        self._scripts: dict[str, Any] = {}
        make_client(url, timeout_seconds=timeout_seconds)

    def script(self, name: str, *args: str | bytes | float, doing: str | None = None) -> Any:
        """Run `lua/<name>.lua`, reloading it where the server forgot it; a failure says
        what it was `doing`.
        """
        with self.client(doing or name.replace("_", " ")):
            return self._scripts[name](keys=[self._prefix], args=(self.owner, *args))

    def ack(self, stream_ids: Sequence[str]) -> int:
        """XACK in pieces that a script can take; how many were un-acked."""
        return sum(
            int(self.script("ack", *stream_ids[at : at + 500]))
            for at in range(0, len(stream_ids), 500)
        )

    @contextmanager
    def client(self, doing: str) -> Iterator[Any]:
        """The client of this process, for `doing`; failures leave as QueueUnavailable."""
        with reaching(self.url, doing):
            # shared over a fork, a socket would mix two processes' replies
            if self._client_of != os.getpid():
                client = make_client(
                    self.url, timeout_seconds=self._timeout_seconds, retries=self._retries
                )
                self._scripts = {
                    name: client.register_script(text) for name, text in _sources().items()
                }
                self._client, self._client_of = client, os.getpid()
                # now, not whenever the garbage collector gets there
                weakref.finalize(self, client.close)
            yield self._client

    def close(self) -> None:
        """Close this process's sockets; the next call opens new ones."""
        if self._client_of == os.getpid():
            self._client.close()
            self._client_of = 0

    def wait(self, seconds: float) -> None:
        """Until the server answers; QueueUnavailable after `seconds`, or at once for a
        wrong password.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                ping(self.url, timeout_seconds=max(0.1, min(2.0, seconds)))
            except QueueUnavailable as error:
                if (
                    isinstance(error.__cause__, exceptions.AuthenticationError)
                    or time.monotonic() > deadline
                ):
                    raise
                time.sleep(0.1)
            else:
                return


def make_client(url: str, *, timeout_seconds: float, retries: int = 0) -> Any:
    """A client of its own; without retries it says within milliseconds that the server
    is away.
    """
    addresses.check(url)
    backoff = ExponentialWithJitterBackoff(base=0.05, cap=0.5) if retries else NoBackoff()
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=min(5.0, timeout_seconds),
            # A server that hangs is not asked again: five timeouts would keep whoever
            # waits for half a minute.
            retry=Retry(backoff, retries, supported_errors=(exceptions.ConnectionError,)),
        )
    except (ValueError, TypeError) as error:
        raise RlhpError(
            f"the Redis address {addresses.shown(url)!r} cannot be used: "
            f"{addresses.redact(one_line(error))}"
        ) from None


def ping(url: str, *, timeout_seconds: float = 2.0) -> str:
    """Version of the server that answers at `url`; QueueUnavailable at once where none
    does.
    """
    with reaching(url, "ping"), make_client(url, timeout_seconds=timeout_seconds) as client:
        try:
            client.ping()
            return str(client.info("server")["redis_version"])
        # redis-py takes replies apart as if they were what a Redis says
        except UNREADABLE as error:
            raise exceptions.InvalidResponse(
                f"Protocol Error: it answers as no Redis does ({one_line(error)})"
            ) from error


@contextmanager
def reaching(url: str, doing: str) -> Iterator[None]:
    """Whatever a server refuses, or that it is away, leaves as one line: what was
    tried, where, its words, the way out.

    Only what our own scripts do wrong leaves as it is.
    """
    try:
        yield
    except (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError) as error:
        raise QueueUnavailable(_line(url, doing, error)) from error
    except exceptions.ResponseError as error:
        words = str(error)
        if "NOGROUP " in words:
            raise NoSuchGroup from error
        if words.startswith("TAKENOVER "):
            raise taken_over(Owner.from_json(words.removeprefix("TAKENOVER "))) from error
        if isinstance(error, exceptions.OutOfMemoryError) or "OOM command" in words:
            raise OutOfMemory(_line(url, doing, "it is at its memory limit")) from error
        if any(sign in words for sign in _OURS):
            raise
        # Inside a script, Redis 6.2 buries the code of an error in a sentence.
        sure = f"{words} {type(error).__name__}"
        kind = QueueUnavailable if any(code in sure for code in _AWAY) else Refused
        raise kind(_line(url, doing, error)) from error
    except exceptions.InvalidResponse as error:
        raise Refused(_line(url, doing, error)) from error


_OURS = (
    "attempt to ",
    "bad argument",
    "Error compiling script",
    "wrong number of arguments",
    "stack overflow",
)
"""What Lua and Redis say about a script that is wrong."""

_WAYS_OUT: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("NOPERM", "NoPermissionError", "No permissions", "has no permissions"),
        "give this user its keys and commands in the server's ACL, as in ACL SETUSER name ~rlhp:* "
        "+@all -@admin",
    ),
    (
        ("WRONGPASS", "NOAUTH", "AuthenticationError", "AUTH "),
        "check user and password in the address",
    ),
    (("memory limit",), "raise its maxmemory"),
    (
        (
            "MOVED",
            "MovedError",
            "AskError",
            "CROSSSLOT",
            "CLUSTERDOWN",
            "ClusterDownError",
            "ClusterCrossSlotError",
        ),
        "name a single server: a node of a Redis Cluster holds but some of the keys",
    ),
    (
        ("DB index", "invalid DB", "Invalid Database", "SELECT is not allowed"),
        "name a database that it has, as the 0 in redis://host:6379/0, or raise `databases` in "
        "its configuration",
    ),
    (
        ("WRONGTYPE",),
        "something else keeps data under these keys: choose another run name or another database",
    ),
    (
        ("nknown command", "nknown Redis command", "unknown subcommand"),
        "rlhp needs that command: take away the rename-command or the proxy that hides it, or "
        "name another server",
    ),
    (("READONLY", "ReadOnlyError"), "name the primary, not a replica of it"),
    (
        ("MISCONF", "NOREPLICAS"),
        "let it save its data again (its log says what is wrong), then try again",
    ),
    (("DENIED", "protected mode"), "set a password on it, and give that in RLHP_REDIS_PASSWORD"),
    (
        ("max number of clients",),
        "raise its maxclients, or end programs that keep connections open",
    ),
    (("Protocol Error", "HTTP/"), "something else than Redis answers there: check host and port"),
)
"""Signs in what a server says, and what helps; the first that fits."""


def _way_out(cause: object, words: str) -> str:
    fitting = (way for signs, way in _WAYS_OUT if any(sign in words for sign in signs))
    older = (
        ""
        if isinstance(cause, exceptions.ConnectionError | exceptions.TimeoutError)
        else " is Redis 6.2 or later,"
    )
    return next(
        fitting, f"check that the server{older} runs and can be reached from here, then try again"
    )


def _line(url: str, doing: str, cause: object) -> str:
    words = " ".join(str(cause).split()) or type(cause).__name__
    shorter = addresses.redact(words if len(words) <= 300 else f"{words[:300]}...").rstrip(".")
    way_out = _way_out(cause, f"{words} {type(cause).__name__}")
    return f"{doing}: no service from Redis at {addresses.shown(url)}: {shorter}; {way_out}"


@cache
def _sources() -> dict[str, str]:
    folder = resources.files("rlhp.queue") / "lua"
    texts = {file.name.removesuffix(".lua"): file.read_text() for file in folder.iterdir()}
    prelude = texts.pop("prelude")
    return {name: f"{prelude}\n{text}" for name, text in texts.items()}
