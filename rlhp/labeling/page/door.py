"""The door of a server: who may keep a connection, so that nobody's silence shuts the
others out.

    accept    a number of connections in all, half of them from one address; where one more
              comes, the one that can best be spared is closed: without a token before with one,
              waiting before busy, then the oldest
    sweep     closes what has sent no whole request for `silent_seconds` (half of a TLS
              handshake is silence, and so is a header that trickles in), and a reply that
              nobody reads

It sits in the listening socket, where every connection comes by, also those whose
handshake never ends. uvicorn's `limit_concurrency` is no substitute: it counts silent
connections, and turns away whoever asks for something.

What a server writes to its log: a line of each kind once a minute, however often it
comes up.

Whoever reaches the page can make it warn. The number of lines must not be theirs to
choose.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import math
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

MOST_CONNECTIONS = 512
FEWEST_CONNECTIONS = 16
RESERVED_FILES = 128
"""So many open files are left for Redis, pages and clips, and for connections that are
accepted before others close.
"""
_OUT_OF_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a door allows."""

    connections: int = MOST_CONNECTIONS
    silent_seconds: float = 10.0
    """Without a whole request: of a new connection, and between two requests."""
    request_seconds: float = 60.0
    """From a request to the last byte of its reply, which whoever asked has to read."""

    @classmethod
    def of_this_process(cls) -> Limits:
        """These limits, with as many connections as the limit of open files leaves room
        for.
        """
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = MOST_CONNECTIONS if files == resource.RLIM_INFINITY else files - RESERVED_FILES
        return cls(connections=max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, room)))


class Visit(socket.socket):
    """One connection, and what is known of it."""

    door: Door
    peer: tuple[str, int]
    address: str
    known = False
    """Whether its last request showed a token that is known."""
    busy = False
    since = 0.0
    """The moment at which its request began or its last one ended; before the first, at
    which it was accepted.
    """

    def turns(self, *, busy: bool) -> None:
        """A request begins or ends."""
        self.busy, self.since = busy, time.monotonic()

    def leave(self) -> None:
        """Wake whoever waits for this connection, who then closes it."""
        self.door.forget(self)
        with contextlib.suppress(OSError):  # the other side was faster
            self.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closed, for whatever reason."""
        self.door.forget(self)
        super().close()


class Door(socket.socket):
    """A listening socket that accepts no more than it can keep; `attended(app)` tells
    it what its visitors do.
    """

    def __init__(self, listening: socket.socket, *, limits: Limits) -> None:
        """Takes the socket over."""
        family, kind, protocol = listening.family, listening.type, listening.proto
        super().__init__(family, kind, protocol, fileno=listening.detach())
        self._limits = limits
        self._visits: dict[tuple[str, int], Visit] = {}
        self._spare = os.open(os.devnull, os.O_RDONLY)
        """Given up for a moment where no file is left, so that who knocks can be turned
        away instead of waiting.
        """

    def accept(self) -> tuple[Visit, Any]:
        """The next connection that there is room for; as asyncio expects it, an error
        that is none where it is not.
        """
        try:
            accepted, peer = super().accept()
        except OSError as error:
            if error.errno not in _OUT_OF_FILES:
                raise
            self._turn_one_away()
            raise BlockingIOError from None
        visit = Visit(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        visit.door, visit.peer, visit.address = self, peer[:2], _address(peer[0])
        visit.turns(busy=False)
        if not self._has_room(visit.address):
            visit.close()
            raise ConnectionAbortedError
        self._visits[visit.peer] = visit
        return visit, peer

    @property
    def visitors(self) -> int:
        """How many connections are open."""
        return len(self._visits)

    def sweep(self) -> None:
        """Close what has been silent, or busy, for too long; to be called every second
        or so.
        """
        now, limits = time.monotonic(), self._limits
        for visit in list(self._visits.values()):
            if now - visit.since > (
                limits.request_seconds if visit.busy else limits.silent_seconds
            ):
                visit.leave()

    def forget(self, visit: Visit) -> None:
        """It is closed, or about to be."""
        if self._visits.get(visit.peer) is visit:
            del self._visits[visit.peer]

    def attended(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application so that its requests are noted. It goes around whatever
        rewrites `scope["client"]`.
        """

        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            visit = self._visits.get(tuple(scope.get("client") or ()))
            if visit is None:
                await app(scope, receive, send)
                return
            visit.turns(busy=True)
            try:
                await app(scope, receive, send)
            finally:
                visit.known = "me" in scope.get("state", {})
                visit.turns(busy=False)

        return noted

    def close(self) -> None:
        """Accept nobody any more."""
        if self.fileno() >= 0:
            os.close(self._spare)
        super().close()

    def _has_room(self, address: str) -> bool:
        here = [visit for visit in self._visits.values() if visit.address == address]
        if len(here) >= max(1, self._limits.connections // 2):
            return _spare_one(here, f"from {address}")
        if len(self._visits) >= self._limits.connections:
            return _spare_one(list(self._visits.values()), "in all")
        return True

    def _turn_one_away(self) -> None:
        _log.warning(
            "no file is left for another connection: raise the limit of open files (ulimit -n)"
        )
        if _spare_one(list(self._visits.values()), "in all"):
            return  # its file is free when the event loop has closed it
        os.close(self._spare)
        try:
            with contextlib.suppress(OSError):
                super().accept()[0].close()
        finally:
            self._spare = os.open(os.devnull, os.O_RDONLY)


def _spare_one(visits: list[Visit], where: str) -> bool:
    """Close the visit that matters least; False where all of them are labelers' whose
    requests are under way.
    """
    least = min(visits, key=lambda visit: (visit.known, visit.busy, visit.since), default=None)
    if least is None or (least.known and least.busy):
        _log.warning(
            "%d connections %s, all of them in use: no more are accepted", len(visits), where
        )
        return False
    _log.warning(
        "%d connections %s: the oldest that asks for nothing is closed for each new one",
        len(visits),
        where,
    )
    least.leave()
    return True


def _address(host: str) -> str:
    """Whose connections are counted together: of IPv6 a whole network, since everybody
    has as many addresses.
    """
    if ":" not in host:
        return host
    return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))


EVERY_SECONDS = 60.0
LONGEST_LINE = 1000


class Seldom(logging.Filter):
    """Lets a line of one place in the code, and of one kind of error, pass once in a
    while, and counts the others.
    """

    def __init__(self, *, every_seconds: float = EVERY_SECONDS) -> None:
        super().__init__()
        self._every = every_seconds
        self._passed: dict[tuple[str, int, type[BaseException] | None], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one passes; its message then says how many did not."""
        key = (record.pathname, record.lineno, record.exc_info[0] if record.exc_info else None)
        at, held_back = self._passed.get(key, (-math.inf, 0))
        if record.created - at < self._every:
            self._passed[key] = (at, held_back + 1)
            return False
        self._passed[key] = (record.created, 0)
        text = record.getMessage()[:LONGEST_LINE]
        record.msg, record.args = (
            f"{text} ({held_back} more like it since)" if held_back else text,
            (),
        )
        return True


@contextmanager
def to_stderr() -> Iterator[None]:
    """Warnings of this process for the length of a block, uvicorn's and asyncio's
    included.
    """
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.addFilter(Seldom())
    formatter = logging.Formatter(
        "%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
