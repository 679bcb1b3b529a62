"""The one door to Redis: clients that survive forks and restarts, scripts, and one error for `server away`.

redis-py retries a call whose reply was lost, so whatever goes through `script` must be idempotent.
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
from urllib.parse import urlsplit, urlunsplit

import redis
from redis import exceptions
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from rlhp.errors import RlhpError, Unreachable
from rlhp.owner import Owner, taken_over

RETRIES = 4
"""Over about a second: a server that is restarted at once is not even noticed."""
_AWAY = ("MISCONF", "CLUSTERDOWN", "MASTERDOWN", "NOAUTH", "READONLY")


class QueueUnavailable(Unreachable):
    """Redis cannot be reached or cannot serve now: what was tried, where, and the way out, in one line."""


class OutOfMemory(QueueUnavailable):
    """The server is at its memory limit."""


class NoSuchGroup(LookupError):
    """The answer log has no readers' group: the run was never opened."""


class Connection:
    """One process's way to one server, built at first use and again after a fork."""

    def __init__(
        self, url: str, *, prefix: str, timeout_seconds: float, owner: str = "", retries: int = RETRIES
    ) -> None:
        """Connects to nothing yet; ValueError for a URL that can be none.

        `owner`: the token that is shown with every script. Once another owner's is in force, all of them raise
        TakenOver and do nothing.
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
        """Run `lua/<name>.lua`, reloading it where the server forgot it; a failure says what it was `doing`."""
        with self.client(doing or name.replace("_", " ")):
            return self._scripts[name](keys=[self._prefix], args=(self.owner, *args))

    def ack(self, stream_ids: Sequence[str]) -> int:
        """XACK in pieces that a script can take; how many were un-acked."""
        return sum(int(self.script("ack", *stream_ids[at : at + 500])) for at in range(0, len(stream_ids), 500))

    @contextmanager
    def client(self, doing: str) -> Iterator[Any]:
        """The client of this process, for `doing`; failures leave as QueueUnavailable."""
        with reaching(self.url, doing):
            if self._client_of != os.getpid():  # shared over a fork, a socket would mix two processes' replies
                client = make_client(self.url, timeout_seconds=self._timeout_seconds, retries=self._retries)
                self._scripts = {name: client.register_script(text) for name, text in _sources().items()}
                self._client, self._client_of = client, os.getpid()
                weakref.finalize(self, client.close)  # now, not whenever the garbage collector gets there
            yield self._client

    def close(self) -> None:
        """Close this process's sockets; the next call opens new ones."""
        if self._client_of == os.getpid():
            self._client.close()
            self._client_of = 0

    def wait(self, seconds: float) -> None:
        """Until the server answers; QueueUnavailable after `seconds`, or at once for a wrong password."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                ping(self.url, timeout_seconds=max(0.1, min(2.0, seconds)))
            except QueueUnavailable as error:
                if isinstance(error.__cause__, exceptions.AuthenticationError) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return


def make_client(url: str, *, timeout_seconds: float, retries: int = 0) -> Any:
    """A client of its own; without retries it says within milliseconds that the server is away."""
    backoff = ExponentialWithJitterBackoff(base=0.05, cap=0.5) if retries else NoBackoff()
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=min(5.0, timeout_seconds),
            # A server that hangs is not asked again: five timeouts would keep whoever waits for half a minute.
            retry=Retry(backoff, retries, supported_errors=(exceptions.ConnectionError,)),
        )
    except ValueError:
        raise RlhpError(
            f"a Redis address starts with redis://, rediss:// or unix://, as in redis://127.0.0.1:6379/0; "
            f"got {redact(url)!r}"
        ) from None


def ping(url: str, *, timeout_seconds: float = 2.0) -> str:
    """Version of the server that answers at `url`; QueueUnavailable at once where none does."""
    with reaching(url, "ping"), make_client(url, timeout_seconds=timeout_seconds) as client:
        client.ping()
        return str(client.info("server")["redis_version"])


@contextmanager
def reaching(url: str, doing: str) -> Iterator[None]:
    """Everything in redis-py that means `the server is away` leaves as QueueUnavailable."""
    wayout = "check that the server runs and can be reached from here, then try again"
    try:
        yield
    except (exceptions.AuthenticationError, exceptions.NoPermissionError) as error:
        raise QueueUnavailable(_line(url, doing, error, "check user and password in the address")) from error
    except (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError) as error:
        raise QueueUnavailable(_line(url, doing, error, wayout)) from error
    except exceptions.ResponseError as error:
        words = str(error)  # inside a script, Redis 6.2 buries the code of an error in a sentence
        if isinstance(error, exceptions.OutOfMemoryError) or "OOM command" in words:
            raise OutOfMemory(_line(url, doing, "it is at its memory limit", "raise its maxmemory")) from error
        if "NOGROUP " in words:
            raise NoSuchGroup from error
        if words.startswith("TAKENOVER "):
            raise taken_over(Owner.from_json(words.removeprefix("TAKENOVER "))) from error
        if not any(code in words for code in _AWAY):
            raise
        raise QueueUnavailable(_line(url, doing, error, wayout)) from error


def redact(url: str) -> str:
    """The address without user, password and query: fit for logs."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _line(url: str, doing: str, cause: object, wayout: str) -> str:
    return f"{doing}: no service from Redis at {redact(url)}: {str(cause).rstrip('.')}; {wayout}"


@cache
def _sources() -> dict[str, str]:
    folder = resources.files("rlhp.query") / "lua"
    texts = {file.name.removesuffix(".lua"): file.read_text() for file in folder.iterdir()}
    prelude = texts.pop("prelude")
    return {name: f"{prelude}\n{text}" for name, text in texts.items()}
