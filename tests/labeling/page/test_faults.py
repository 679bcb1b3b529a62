"""Servers and Redis that go away in the middle of a session, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhp.cli import main
from rlhp.labeling.page.address import bound
from rlhp.queue.embedded import EmbeddedRedis
from tests.labeling.page.parts import Tab, ask, human_run, served, serving
from tests.labeling.parts import until
from tests.queue.parts import events


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


def test_a_session_goes_on_at_another_server_after_the_first_was_killed(redis_url: str) -> None:
    with human_run(redis_url) as queue:
        ask(queue, 4)
        with serving(queue) as (process, link), Tab(link) as tab:
            shown, ahead = tab.leases()
            tab.answer(shown, "left")
            process.kill()
            process.wait()
        with serving(queue) as (_, link), Tab(link) as tab:
            assert tab.answer(shown, "left") == "same", "sent again, because the reply was lost"
            assert [lease["token"] for lease in tab.leases()][:1] == [ahead["token"]]
            assert tab.answer(ahead, "right") == "ok"
            assert tab.post("/api/undo")["choice"] == "right"
        assert len([event for event in events(queue) if event.event == "answer"]) == 2


def test_two_servers_of_one_run_are_one_desk(redis_url: str) -> None:
    with human_run(redis_url) as queue, served(queue) as one, served(queue) as two:
        ask(queue, 3)
        with Tab(one) as here, Tab(two) as there:
            lease = here.leases()[0]
            assert there.leases()[0]["token"] == lease["token"]
            assert [here.answer(lease), there.answer(lease)] == ["ok", "same"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_leaves_on_a_signal_with_exit_code_0(
    redis_url: str, number: signal.Signals
) -> None:
    with human_run(redis_url) as queue, serving(queue) as (process, link), Tab(link) as tab:
        tab.get("/api/run")
        process.send_signal(number)
        assert process.wait(20) == 0


def test_while_redis_is_away_every_call_says_so_and_then_works_again(redis: EmbeddedRedis) -> None:
    with human_run(redis.url) as queue, served(queue) as link, Tab(link) as tab:
        ask(queue, 2)
        lease = tab.leases()[0]
        os.kill(redis.pid, signal.SIGSTOP)  # away, and not restarted by its supervisor
        try:
            reply = tab.http.post("/api/answers", json=_answer(lease))
            assert reply.status_code == 503
            assert reply.headers["retry-after"] == "1"
            assert reply.json() == {
                "error": "the queue is away for the moment; try again, nothing is lost"
            }
            assert tab.http.get("/").status_code in (200, 404), "the page itself needs no Redis"
        finally:
            os.kill(redis.pid, signal.SIGCONT)
        until(lambda: tab.http.post("/api/answers", json=_answer(lease)).status_code == 200)
        assert tab.answer(lease) == "same"
        assert queue.stats().answered == 1


def test_a_redis_that_was_killed_comes_back_with_lease_and_session(redis: EmbeddedRedis) -> None:
    with human_run(redis.url) as queue, served(queue) as link, Tab(link) as tab:
        ask(queue, 2)
        lease, ahead = tab.leases()
        tab.answer(lease)
        until(lambda: queue.stats().answered == 1)
        os.kill(redis.pid, signal.SIGKILL)
        until(lambda: tab.http.post("/api/answers", json=_answer(ahead)).status_code == 200)
        assert tab.answer(lease) == "same"
        assert queue.stats().answered == 2


def test_the_end_of_its_holder_ends_a_server(redis_url: str, tmp_path: Path) -> None:
    with human_run(redis_url) as queue:
        words = [
            sys.executable,
            "-m",
            "rlhp",
            "serve",
            "--redis",
            queue.url,
            "--run",
            queue.run,
            "--port",
            "0",
        ]
        with subprocess.Popen(
            [*words, "--until-eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            process.stdout.readline()
            process.stdin.close()
            assert process.wait(20) == 0


def test_a_server_needs_its_redis_at_the_start_and_a_port_that_is_free(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main.run(["serve", "--redis", "redis://127.0.0.1:1/0", "--run", "gone", "--port", "0"]) == 2
    )
    assert "no service from Redis at redis://127.0.0.1:1/0" in capsys.readouterr().err
    with human_run(redis_url) as queue, bound("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert main.run(["serve", "--redis", redis_url, "--run", queue.run, "--port", port]) == 2
        assert (
            f"cannot serve at 127.0.0.1 port {port}: Address already in use"
            in capsys.readouterr().err
        )
        with bound("127.0.0.1", int(port), or_free=True) as free:
            assert free.getsockname()[1] != taken.getsockname()[1]


def _answer(lease: dict[str, object]) -> dict[str, object]:
    return {"page": "tab-1", "query": lease["query"], "token": lease["token"], "choice": "left"}
