"""A Redis of one's own behind TLS and an ACL: a run's whole life at it, and what is
said where it may not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from rlhp.config.schema import RedisConfig
from rlhp.queue.connection import QueueUnavailable, ping
from rlhp.queue.queue import QueryQueue
from rlhp.queue.runs import list_runs
from rlhp.storage import credentials
from tests.queue.parts import ask, events, opened, say, take
from tests.queue.tls import certificates, encrypted

PASSWORD = "a pass/word"
RULES = ["on", f">{PASSWORD}", "~rlhp:*", "+@all", "-@admin", "-@dangerous", "+info"]
"""What docs/cluster.md tells to write into the server's list of users."""


@pytest.fixture
def user(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of the server without password, which the environment knows; the user may
    touch `rlhp:*` alone.
    """
    with redis.Redis.from_url(redis_url) as admin:
        admin.execute_command("ACL", "SETUSER", "rlhp", *RULES)
        monkeypatch.setenv(credentials.PASSWORD, PASSWORD)
        monkeypatch.delenv(credentials.URL, raising=False)
        yield f"redis://127.0.0.1:{urlsplit(redis_url).port}/0"
        admin.execute_command("ACL", "DELUSER", "rlhp")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return certificates(tmp_path_factory.mktemp("certificates"))


def live(url: str) -> QueryQueue:
    """All that a run does at its queue, from its opening to its end."""
    queue = opened(url, budget=5)
    assert queue.run in list_runs(url)
    assert ask(queue) == "ok"
    assert say(queue, take(queue)) == "ok"
    (event,) = events(queue)
    assert event.answer == "first"
    queue.ack([event.stream_id])
    queue.sweep()
    queue.trim()
    queue.accounts.add("ann")
    assert queue.stats().asked == 1
    queue.close()
    return queue


def test_a_user_that_may_touch_its_own_keys_alone_is_enough(user: str) -> None:
    url = credentials.address(RedisConfig(url=user, username="rlhp"))
    assert url is not None
    live(url)
    with redis.Redis.from_url(url) as client:
        for refused in (lambda: client.set("other", "1"), client.flushall, client.config_get):
            with pytest.raises(redis.exceptions.NoPermissionError):
                refused()


def test_a_wrong_password_is_told_without_it(user: str) -> None:
    with pytest.raises(QueueUnavailable, match="check user and password in the address") as raised:
        ping(user.replace("//", "//rlhp:wr0ng@"))
    assert "wr0ng" not in str(raised.value)


def test_a_run_lives_behind_tls(user: str, files: dict[str, Path]) -> None:
    port = urlsplit(user).port
    assert port is not None
    with encrypted(port, files) as safe:
        address = f"rediss://127.0.0.1:{safe}/0"
        url = credentials.address(
            RedisConfig(url=address, username="rlhp", ca_file=str(files["ca"]))
        )
        assert url is not None
        live(url)
        assert PASSWORD not in credentials.without_password(url)
        with pytest.raises(QueueUnavailable, match="certificate verify failed"):
            ping(credentials.complete(address))
        with pytest.raises(QueueUnavailable):
            ping(f"redis://127.0.0.1:{safe}/0")


def test_a_server_that_wants_a_certificate_gets_one(user: str, files: dict[str, Path]) -> None:
    port = urlsplit(user).port
    assert port is not None
    with encrypted(port, files, wants_certificate=True) as safe:
        config = {
            "url": f"rediss://127.0.0.1:{safe}/0",
            "username": "rlhp",
            "ca_file": str(files["ca"]),
        }
        named = credentials.address(
            RedisConfig(**config, cert_file=str(files["client"]), key_file=str(files["client_key"]))  # type: ignore[arg-type]
        )
        assert named is not None
        live(named)
        nameless = credentials.address(RedisConfig(**config))  # type: ignore[arg-type]
        assert nameless is not None
        with pytest.raises(QueueUnavailable):
            ping(nameless)
