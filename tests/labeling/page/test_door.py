"""Connections that say nothing, too little, or read nothing: labelers are served beside
them, and the log is short.
"""

from __future__ import annotations

import logging
import re
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from rlhp.labeling.page import door as door_module
from rlhp.labeling.page import guard
from rlhp.labeling.page import server as serving_module
from rlhp.labeling.page.address import bound
from rlhp.labeling.page.desk import Place
from rlhp.labeling.page.door import (
    FEWEST_CONNECTIONS,
    MOST_CONNECTIONS,
    RESERVED_FILES,
    Door,
    Limits,
    Seldom,
)
from rlhp.queue.queue import QueryQueue
from tests.labeling.page.parts import WEBM, Tab, address_in, ask, behind, serving
from tests.labeling.parts import until

FEW = Limits(connections=16, silent_seconds=60, request_seconds=60)
QUICK = Limits(connections=64, silent_seconds=0.3, request_seconds=0.3)
REQUEST = b"GET /api/run HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n"


@contextmanager
def opened(queue: QueryQueue, limits: Limits, **tls: str) -> Iterator[tuple[Door, str]]:
    """A page behind a door of these limits, and its link."""
    door = Door(bound("127.0.0.1", 0), limits=limits)
    with behind(door, Place(url=queue.url, run=queue.run), **tls) as link:
        yield door, link


def connected(link: str, said: bytes = b"") -> socket.socket:
    """A connection on which this much was said."""
    found = socket.create_connection(("127.0.0.1", urlsplit(link).port or 0), timeout=30)
    found.sendall(said)
    return found


def closed(connection: socket.socket) -> bool:
    """Whether the other side is gone, once everything it sent is read."""
    try:
        while connection.recv(1 << 16):
            pass
    except OSError:
        return True
    return True


@pytest.mark.parametrize(
    "said",
    [
        b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 500,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/answers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n{",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT",
    ],
)  # fmt: skip
def test_whoever_sends_no_whole_request_is_let_go(queue: QueryQueue, said: bytes) -> None:
    with opened(queue, QUICK) as (door, link), connected(link, said) as connection:
        assert closed(connection)
        until(lambda: door.visitors == 0)


def test_half_of_a_tls_handshake_is_let_go(queue: QueryQueue, pair: tuple[str, str]) -> None:
    with opened(queue, QUICK, certificate=pair[0], key=pair[1]) as (door, link):
        with connected(link) as nothing, connected(link, b"\x16\x03\x01\x02\x00\x01\x00") as half:
            assert closed(nothing)
            assert closed(half)
        until(lambda: door.visitors == 0)
        with httpx.Client(verify=ssl.create_default_context(cafile=pair[0])) as browser:
            assert browser.get(address_in(link) + "/api/run").status_code == 401


def test_a_reply_that_nobody_reads_ends(queue: QueryQueue) -> None:
    (query,) = ask(queue, 1)
    queue.clips.store(query=query, side="first", data=WEBM + bytes(30_000_000))
    with opened(queue, QUICK) as (door, link):
        token = link.partition("#token=")[2].encode()
        path = f"GET /api/admin/clips/{query}/first HTTP/1.1".encode()
        with connected(link, REQUEST.replace(b"GET /api/run HTTP/1.1", path) % token):
            until(lambda: door.visitors == 1)
            until(lambda: door.visitors == 0)


def test_a_body_that_trickles_in_is_refused(
    queue: QueryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    with opened(queue, FEW) as (_, link):
        head = b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n{"
        with connected(link, head) as connection:
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def reply_on(connection: socket.socket) -> bytes:
    """A whole reply, which may come in pieces; the connection stays open."""
    reply = b""
    while b"\r\n\r\n" not in reply:
        reply += connection.recv(4096)
    head, _, body = reply.partition(b"\r\n\r\n")
    (length,) = re.findall(rb"(?i)content-length: (\d+)", head)
    while len(body) < int(length):
        body += connection.recv(4096)
    return head


def test_labelers_are_served_however_many_say_nothing_beside_them(
    queue: QueryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "IDLE_SECONDS", 60)
    with opened(queue, FEW) as (door, link), ExitStack() as stack:
        token = link.partition("#token=")[2].encode()
        mine = stack.enter_context(connected(link, REQUEST % token))
        assert reply_on(mine).startswith(b"HTTP/1.1 200 ")
        for round_ in range(3):
            for said in [
                b"",
                b"GET / HT",
                b"POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
            ] * 8:
                stack.enter_context(connected(link, said))
            with Tab(link) as newcomer:
                assert newcomer.get("/api/run")["labeler"] == "local"
            assert door.visitors <= FEW.connections // 2, "all of them are from one address"
            mine.sendall(REQUEST % token)
            assert reply_on(mine).startswith(b"HTTP/1.1 200 "), (
                f"who has a token stays, round {round_}"
            )


def test_where_no_file_is_left_it_says_so_once_and_serves(queue: QueryQueue) -> None:
    with serving(queue, "--port", "0", files=64) as (process, link), ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connected(link))
        for _ in range(200):
            connected(link, b"\x00 nonsense\r\n\r\n").close()
        with Tab(link) as tab:
            assert tab.get("/api/run")["labeler"] == "local"
        process.terminate()
        assert process.stdout is not None
        said = process.stdout.read()
    assert (
        "connections from 127.0.0.1: the oldest that asks for nothing is closed for each new one"
        in said
    )
    assert "Traceback" not in said
    assert len(said.splitlines()) < 10, said


@pytest.mark.parametrize(
    ("files", "connections"),
    [
        (64, FEWEST_CONNECTIONS), (RESERVED_FILES + 100, 100), (1 << 20, MOST_CONNECTIONS),
        (resource.RLIM_INFINITY, MOST_CONNECTIONS),
    ],
)  # fmt: skip
def test_there_are_as_many_connections_as_files_are_left_for(
    files: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert Limits.of_this_process().connections == connections


def test_addresses_that_one_machine_has_all_of_are_one() -> None:
    assert door_module._address("203.0.113.9") != door_module._address("203.0.113.10")
    assert door_module._address("2001:db8:1:2::1") == door_module._address("2001:db8:1:2:ffff::9")
    assert door_module._address("2001:db8:1:2::1") != door_module._address("2001:db8:1:3::1")
    assert door_module._address("fe80::1%eth0") == door_module._address("fe80::2%eth0")


def test_a_line_of_one_kind_is_written_once_a_minute_and_says_how_often_it_was_not() -> None:
    seldom = Seldom()

    def line(at: float, text: str, **more: Any) -> logging.LogRecord:
        facts = {"msg": text, "created": at, "pathname": "a.py", "lineno": 1, **more}
        return logging.makeLogRecord(facts)

    assert [seldom.filter(line(at, f"from {at}")) for at in (0, 1, 59)] == [True, False, False]
    assert seldom.filter(line(1, "elsewhere", lineno=2))
    assert seldom.filter(line(1, "another error", exc_info=(ValueError, ValueError(), None)))
    later = line(61, "from 61")
    assert seldom.filter(later)
    assert later.getMessage() == "from 61 (2 more like it since)"
