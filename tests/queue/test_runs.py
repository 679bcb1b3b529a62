"""Opening a run: what is its own, what is foreign, and what people are told when Redis
is away.
"""

from __future__ import annotations

import logging
import secrets

import pytest
import redis

from rlhp.queue.queue import QueryQueue, QueueUnavailable, list_runs, ping
from tests.queue.parts import Meddler, ask, say, take


def test_a_reopened_run_keeps_its_counters_and_its_limits_follow(queue: QueryQueue) -> None:
    ask(queue, "a")
    say(queue, take(queue))
    queue.close()
    again = QueryQueue(queue.url, run=queue.run)
    again.open(cap=1, config_sha256="c0ffee", info={"env": "Pendulum"})
    assert (again.state, again.stats().done, again.stats().asked) == ("open", 1, 1)
    assert [ask(again, "a"), ask(again, "b"), ask(again, "c")] == ["same", "ok", "full"]


def test_facts_about_a_run_are_there_for_labelers(queue: QueryQueue) -> None:
    queue.set_info({"env": "Pendulum", "instruction": "prefer the taller one: \u00fc"})
    queue.set_info({"env": "Hopper"})
    assert queue.info() == {"env": "Hopper", "instruction": "prefer the taller one: \u00fc"}


def test_another_configuration_under_the_same_name_is_refused_unless_resumed(
    queue: QueryQueue,
) -> None:
    with pytest.raises(
        ValueError,
        match=r"belongs to a run of another configuration \(sha256 c0ffee, this one beef\)",
    ):
        queue.open(cap=9, config_sha256="beef")
    queue.open(cap=9, config_sha256="beef", resume=True)
    queue.open(cap=9, config_sha256="beef")


def test_another_schema_is_refused(queue: QueryQueue, meddler: Meddler) -> None:
    meddler.redis.hset(meddler.key("meta"), "schema", "7")
    with pytest.raises(
        ValueError,
        match=r"meta at redis://.* has schema 7, this rlhp needs 1; use the rlhp that made",
    ):
        queue.open(cap=9, config_sha256="c0ffee")
    assert meddler.redis.hget(meddler.key("meta"), "cap") == "1000"


@pytest.mark.parametrize("kind", ["hash", "string"])
def test_foreign_keys_are_refused_and_left_alone(redis_url: str, kind: str) -> None:
    queue = QueryQueue(redis_url, run=f"foreign-{secrets.token_hex(4)}")
    meddler = Meddler(queue)
    if kind == "hash":
        meddler.redis.hset(meddler.key("meta"), "owner", "somebody")
    else:
        meddler.redis.set(meddler.key("meta"), "somebody's")
    with pytest.raises(
        ValueError, match="was not made by rlhp; choose another run name or another Redis database"
    ):
        queue.open(cap=9, config_sha256="c0ffee")
    assert meddler.redis.type(meddler.key("meta")) == kind
    assert queue.run not in list_runs(redis_url)
    meddler.redis.delete(meddler.key("meta"))
    meddler.close()


def test_a_run_that_was_never_opened_is_missing(redis_url: str) -> None:
    queue = QueryQueue(redis_url, run="nowhere")
    assert (queue.state, queue.stats().state, queue.lease(labeler="ann", page="p")) == (
        "missing",
        "missing",
        [],
    )
    for call in (lambda: ask(queue), lambda: queue.set_info({"a": "b"})):
        with pytest.raises(
            ValueError, match=r"run nowhere is not at redis://.*: it was never opened there, or"
        ):
            call()
    queue.close()
    assert queue.state == "missing"


def test_runs_are_listed_by_name(queue: QueryQueue) -> None:
    assert queue.run in list_runs(queue.url)
    assert list_runs(queue.url) == sorted(list_runs(queue.url))


@pytest.mark.parametrize("run", ["", "a b", "{x}", "-x", "x" * 81, "a:b"])
def test_a_run_name_that_could_not_be_a_key_is_refused(run: str) -> None:
    with pytest.raises(ValueError, match="the name of a run is 1 to 80 letters, digits or"):
        QueryQueue("redis://localhost", run=run)


def test_a_labeler_name_that_could_not_be_a_key_is_refused(queue: QueryQueue) -> None:
    with pytest.raises(
        ValueError, match=r"the name of a labeler is 1 to 80 letters.*; got 'ann b'"
    ):
        queue.lease(labeler="ann b", page="p")


def test_limits_that_make_no_sense_are_refused(queue: QueryQueue) -> None:
    with pytest.raises(
        ValueError, match="cap and max_skips are at least 1, a budget at least 0; got 0, 3, None"
    ):
        queue.open(cap=0, config_sha256="c0ffee")
    with pytest.raises(
        ValueError, match="a lease lasts longer than zero seconds, got lease_seconds=0"
    ):
        QueryQueue("redis://localhost", run="x", lease_seconds=0)


def test_an_address_that_is_none_is_refused_without_its_password() -> None:
    with pytest.raises(
        ValueError, match=r"a Redis address starts with redis://.*; got 'http://host/0'"
    ):
        QueryQueue("http://me:secret@host/0", run="x")


def test_an_absent_server_is_told_in_one_line_without_the_password() -> None:
    url = "redis://me:secret@127.0.0.1:1/0"
    queue = QueryQueue(url, run="x", connect_timeout_seconds=0.05)
    with pytest.raises(QueueUnavailable) as caught:
        queue.open(cap=1, config_sha256="c0ffee")
    text = str(caught.value)
    assert text.startswith("ping: no service from Redis at redis://127.0.0.1:1/0: ")
    assert text.endswith(
        "; check that the server runs and can be reached from here, then try again"
    )
    assert "secret" not in text + repr(queue)
    for call in (
        queue.stats,
        lambda: ask(queue),
        lambda: list_runs(url),
        lambda: queue.events(consumer="trainer"),
    ):
        with pytest.raises(
            QueueUnavailable, match=r"no service from Redis at redis://127.0.0.1:1/0"
        ):
            call()


def test_a_wrong_password_is_told_at_once(redis_url: str) -> None:
    port = redis_url.rpartition(":")[2]
    with pytest.raises(QueueUnavailable, match="; check user and password in the address"):
        QueryQueue(f"redis://:wrong@127.0.0.1:{port}", run="x", connect_timeout_seconds=60).open(
            cap=1, config_sha256="c0ffee"
        )


def test_ping_tells_the_version(redis_url: str) -> None:
    assert tuple(map(int, ping(redis_url).split("."))) >= (6, 2)


def test_a_server_that_may_evict_keys_is_warned_about(
    queue: QueryQueue, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(queue.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            queue.open(cap=9, config_sha256="c0ffee")
        finally:
            client.config_set("maxmemory-policy", "noeviction")
        queue.open(cap=9, config_sha256="c0ffee")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert (
        "may throw queries and answers away (maxmemory-policy allkeys-lru)" in record.getMessage()
    )
