"""What a Redis refuses reaches the user as one line: what was tried, where, its words,
the way out.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from rlhp.errors import RlhpError
from rlhp.queue.embedded import find_server
from rlhp.queue.queue import QueryQueue, ping


@contextmanager
def serving(folder: Path, *settings: str) -> Iterator[int]:
    """A Redis with these settings; its port."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    (folder / "redis.conf").write_text(
        "\n".join([f"port {port}", 'save ""', f"dir {folder}", *settings, ""])
    )
    server = subprocess.Popen(
        [find_server().path, str(folder / "redis.conf")], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(400):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait()


def refusal(url: str) -> str:
    with (
        QueryQueue(url, run="demo", connect_timeout_seconds=2) as queue,
        pytest.raises(RlhpError) as caught,
    ):
        queue.open(cap=5, config_sha256="x")
    line = str(caught.value)
    assert "\n" not in line
    assert "no service from Redis at redis://127.0.0.1" in line
    return line


@pytest.mark.parametrize(
    ("settings", "address", "said", "way_out"),
    [
        (['rename-command EVALSHA ""'], "", "nknown command", "rename-command"),
        (['rename-command PING ""'], "", "nknown command", "rename-command"),
        (["databases 2"], "/7", "DB index is out of range", "raise `databases`"),
        (["user ann on >pw ~other:* +@all"], "", "", "ACL SETUSER"),
        (["user ann on >pw ~* +ping +info +select +hello +client"], "", "", "ACL SETUSER"),
        (["requirepass x"], "", "uthenticat", "user and password"),
        (["cluster-enabled yes"], "", "", "a node of a Redis Cluster"),
    ],
    ids=[
        "no EVALSHA",
        "no PING",
        "too few databases",
        "other keys",
        "few commands",
        "no password",
        "a cluster",
    ],
)
def test_a_refused_command_is_one_line(
    tmp_path: Path, settings: list[str], address: str, said: str, way_out: str
) -> None:
    user = "ann:pw@" if any("ann" in line for line in settings) else ""
    with serving(tmp_path, *settings) as port:
        line = refusal(f"redis://{user}127.0.0.1:{port}{address}")
    assert said in line
    assert way_out in line
    assert "pw" not in line


def test_keys_of_another_program_are_named(tmp_path: Path) -> None:
    with (
        serving(tmp_path) as port,
        redis.Redis(port=port) as client,
        QueryQueue(f"redis://127.0.0.1:{port}/0", run="demo") as queue,
    ):
        queue.open(cap=5, config_sha256="x")
        client.delete("rlhp:{demo}:answers")
        client.set("rlhp:{demo}:answers", "mine")
        with pytest.raises(RlhpError, match=r"WRONGTYPE .* another run name"):
            queue.events(consumer="trainer")


@pytest.mark.parametrize(
    "reply",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*1\r\n" * 100_000, b":5\r\n" * 4],
    ids=["words", "deep", "numbers"],
)
def test_another_program_at_that_port_is_named(reply: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]

        def answer() -> None:
            visitor, _ = door.accept()
            with visitor:
                visitor.recv(100)
                with suppress(OSError):  # it need not be read to its end
                    visitor.sendall(reply)
                    visitor.recv(100)

        visit = threading.Thread(target=answer, daemon=True)
        visit.start()
        with pytest.raises(RlhpError, match=r"something else than Redis answers there"):
            ping(f"redis://127.0.0.1:{port}/0")
        visit.join(10)


@pytest.mark.parametrize("path", ["/main", "/0x1", "/-1", "/1/2", "/0?db=main"])
def test_a_database_that_is_no_number_is_refused_when_the_address_is_read(path: str) -> None:
    with pytest.raises(RlhpError, match="the database of a Redis address is a number"):
        QueryQueue(f"redis://127.0.0.1:1{path}", run="demo")
