"""Where a page listens: a socket that can be handed to the process that serves it, and
what to type into a browser.

The link that opens a page: `rlhp train` and `rlhp serve` print it, and whoever opens it
is the admin `local`.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress

from rlhp.errors import RlhpError
from rlhp.queue.queue import QueryQueue
from rlhp.storage.rundir import RunDir


def bound(host: str, port: int, *, or_free: bool = False) -> socket.socket:
    """A listening socket; with `or_free` on a free port where `port` is taken.
    ValueError for an address not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        if or_free and port:
            return bound(host, 0)
        raise RlhpError(
            f"cannot serve at {host} port {port}: {error.strerror or error}; choose another port, "
            "or 0 for a free one"
        ) from None


def address_of(listening: socket.socket, *, tls: bool = False) -> str:
    """What to type into a browser: on this machine, or on any where the socket listens
    to all.
    """
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def link_token(url: str, *, run: str, rundir: RunDir | None) -> str:
    """The token of that link: the one in the run directory while it opens the page,
    else a new one.
    """
    with QueryQueue(url, run=run) as queue:
        token = None if rundir is None else rundir.page_token()
        if token is None or queue.accounts.find(token) is None:
            token = queue.accounts.link()
            if rundir is not None:
                # somebody else's directory: the next server prints another link
                with suppress(OSError):
                    rundir.write_page_token(token)
        return token
