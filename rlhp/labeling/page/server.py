"""The process that `rlhp serve` is: one application on one socket, for one run, until a
signal.

    produces   answers, through the queue like any labeler
    waits for  requests
    alone      Redis away: says 503 and tries again with the next request; the trainer gone:
               answers wait in Redis

It imports neither torch nor ray, and any number of these may serve one run.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import uvicorn

from rlhp.errors import RlhpError
from rlhp.labeling.page.address import address_of, is_loopback, link_token
from rlhp.labeling.page.app import make_app
from rlhp.labeling.page.desk import Place
from rlhp.labeling.page.door import Door, Limits, to_stderr
from rlhp.queue.queue import QueryQueue, ping

GRACE_SECONDS = 5
IDLE_SECONDS = 5
"""Until a connection that has been served is closed."""
LONGEST_HEADER_BYTES = 32 * 1024
AT_ONCE = 64
"""Connections accepted before any of them is looked at."""


def serve(
    place: Place,
    listening: socket.socket,
    *,
    add: str | None = None,
    until_eof: bool = False,
    link: bool = True,
    certificate: str | None = None,
    key: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM (or, with `until_eof`, the end of standard input);
    closes the socket.

    What is said is a link with a token: that of the admin `local`, or of the labeler
    `add`, who is admitted as an admin first; without `link` the address alone.
    QueueUnavailable where Redis cannot be reached at the start; later absences are
    waited out. `certificate` and `key` are PEM files for TLS; RlhpError for two that do
    not fit.
    """
    with ExitStack() as stack:
        stack.enter_context(listening)
        stack.enter_context(to_stderr())
        _check_pair(certificate, key)
        ping(place.url)
        with QueryQueue(place.url, run=place.run) as queue:
            place = replace(place, lease_seconds=_lease_seconds(queue, place))
        token = _token(place, add=add) if link else None
        address = address_of(listening, tls=certificate is not None)
        door = stack.enter_context(Door(listening, limits=Limits.of_this_process()))
        server = Server(place, door, certificate=certificate, key=key)
        if until_eof:
            threading.Thread(target=_stop_at_eof, args=(server,), daemon=True).start()
        # before the address is known, so that no signal finds the server unprepared
        with server.capture_signals():
            say(
                f"labeling page of run {place.run}: {address}/"
                + (f"#token={token}" if token else "")
            )
            if certificate is None and not is_loopback(door.getsockname()[0]):
                say(
                    "without https tokens can be read on their way: --certificate and --key, or a "
                    "proxy that speaks it"
                )
            server.run(sockets=[door])


def _token(place: Place, *, add: str | None) -> str:
    if add is None:
        return link_token(place.url, run=place.run, rundir=place.rundir)
    with QueryQueue(place.url, run=place.run) as queue:
        return queue.accounts.add(add, admin=True)


def _check_pair(certificate: str | None, key: str | None) -> None:
    if certificate is None:
        if key is not None:
            raise RlhpError(
                f"the key {key} is of no use without its certificate; add --certificate FILE for "
                "https"
            )
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:  # SSLError is one
        raise RlhpError(
            f"no https with certificate {certificate} and key {key or 'in the same file'}: "
            f"{error.strerror or error}; both are PEM files, the certificate followed by those "
            "that signed it"
        ) from None


def _config(
    place: Place, door: Door, *, certificate: str | None, key: str | None
) -> uvicorn.Config:
    return uvicorn.Config(
        door.attended(make_app(place)),
        # the application's own come later: the door has to see whose connection it is
        proxy_headers=False,
        loop="asyncio",  # another one would not accept through the door
        http="h11",
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=AT_ONCE,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=LONGEST_HEADER_BYTES,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


class Server(uvicorn.Server):
    """The page of one run behind a door.

    A signal ends it in good order, as exit code 0: uvicorn would raise the signal again
    at the end.
    """

    def __init__(
        self, place: Place, door: Door, *, certificate: str | None = None, key: str | None = None
    ) -> None:
        super().__init__(_config(place, door, certificate=certificate, key=key))
        self._door = door

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if counter % 10 == 0:
            self._door.sweep()
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first asks for the end, a second does not wait for replies under way."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _lease_seconds(queue: QueryQueue, place: Place) -> float:
    """As the run wants it, which it says in its facts."""
    try:
        return float(queue.info()["lease_seconds"])
    except (KeyError, ValueError):
        return place.lease_seconds


def _stop_at_eof(server: uvicorn.Server) -> None:
    while os.read(0, 4096):
        pass
    server.should_exit = True
    time.sleep(2 * GRACE_SECONDS)
    os._exit(1)  # a request hangs, and nobody is left to kill this process
