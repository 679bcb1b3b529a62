"""The labeling page of a run: one address however often its server dies, and nothing
left behind.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rlhp.config.schema import PageConfig
from rlhp.labeling.page.address import link_token
from rlhp.monitor.rows import RunStatus
from rlhp.queue.queue import QueryQueue
from rlhp.run import children as page_module
from rlhp.run.children import PageServer, page_server
from rlhp.run.services import Noticeboard
from rlhp.storage.rundir import RunDir
from tests.fault_parts import command_line
from tests.labeling.page.parts import command
from tests.labeling.parts import until
from tests.run.parts import run_in
from tests.run.roles import query_actor, reward_trainer

ANY_PORT = PageConfig(port=0)


@contextmanager
def started(config: PageConfig, rundir: RunDir) -> Iterator[PageServer]:
    server = PageServer(config, rundir)
    try:
        yield server
    finally:
        server.stop()


def name_of_run(address: str, rundir: RunDir) -> str:
    """What the page says to whoever opens the run's link, however long its server takes
    to come.
    """
    token = link_token(rundir.redis_url() or "", run=rundir.name, rundir=rundir)
    reply = httpx.get(
        address + "/api/run", headers={"Authorization": f"Bearer {token}"}, timeout=60
    )
    return str(reply.json()["run"])


@pytest.fixture
def run(redis_url: str, tmp_path: Path) -> tuple[RunDir, QueryQueue]:
    return run_in(tmp_path, redis_url, labels={"source": "human"})


def test_the_address_stays_when_the_server_is_killed(run: tuple[RunDir, QueryQueue]) -> None:
    rundir, _ = run
    with started(ANY_PORT, rundir) as server:
        assert rundir.page_url() == server.address
        assert name_of_run(server.address, rundir) == rundir.name
        first = server.pid
        os.kill(first, signal.SIGKILL)
        assert name_of_run(server.address, rundir) == rundir.name, (
            "whoever connects meanwhile waits"
        )
        second = server.pid
        assert first != second
    assert [command_line(pid) for pid in (first, second)] == ["", ""]


def test_a_port_that_is_taken_becomes_a_free_one(run: tuple[RunDir, QueryQueue]) -> None:
    rundir, _ = run
    with started(ANY_PORT, rundir) as one:
        port = int(one.address.rpartition(":")[2])
        with started(PageConfig(port=port), rundir) as two:
            assert one.address != two.address
            assert name_of_run(two.address, rundir) == rundir.name


def test_the_link_that_is_said_opens_the_page_and_stays_the_same(
    run: tuple[RunDir, QueryQueue],
) -> None:
    rundir, queue = run
    said: list[str] = []
    for host in ("127.0.0.1", "127.0.0.1", "0.0.0.0"):
        with page_server(PageConfig(host=host, port=0), rundir, queue, say=said.append):
            assert said[-1] == f"label at {rundir.page_link()}"
    tokens = {line.partition("/#token=")[2] for line in said}
    assert tokens == {rundir.page_token()}
    labelers = queue.accounts
    assert [(each.name, each.admin) for each in labelers.all()] == [("local", True)]
    assert labelers.remove("local")
    with page_server(ANY_PORT, rundir, queue, say=said.append):
        assert rundir.page_token() not in tokens, (
            "who starts the run again is let in again, by a new link"
        )
    assert [labelers.find(token) for token in tokens] == [None]


def test_the_token_of_the_link_is_kept_for_this_user_alone(run: tuple[RunDir, QueryQueue]) -> None:
    rundir, queue = run
    with page_server(ANY_PORT, rundir, queue, say=lambda _: None):
        token = rundir.page_token()
        assert token
        assert name_of_run(rundir.page_url() or "", rundir) == rundir.name
    assert stat.S_IMODE(rundir.page_token_file.stat().st_mode) == 0o600
    files = [
        file for file in rundir.path.rglob("*") if file.is_file() and file != rundir.page_token_file
    ]
    assert [file.name for file in files if token.encode() in file.read_bytes()] == []


def test_its_log_stays_small(
    run: tuple[RunDir, QueryQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    rundir, _ = run
    monkeypatch.setattr(page_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(page_module, "MOST_LOG_BYTES", 100)
    log, before = rundir.path / "page.log", rundir.path / "page.log.1"
    with started(ANY_PORT, rundir) as server, log.open("a") as another:
        assert name_of_run(server.address, rundir) == rundir.name
        for words in ("first", "second"):
            another.write(words + "." * 100 + "\n")
            another.flush()
            until(lambda words=words: before.exists() and words in before.read_text())  # type: ignore[misc]
            until(lambda: log.stat().st_size == 0)
        another.write("goes on")
        another.flush()
        assert log.read_text() == "goes on"


def test_a_server_does_not_outlive_its_driver(run: tuple[RunDir, QueryQueue]) -> None:
    rundir, _ = run
    program = (
        "import sys, time; from rlhp.config.schema import PageConfig; from rlhp.storage.rundir "
        "import RunDir;from rlhp.run.children import PageServer; server = "
        "PageServer(PageConfig(port=0), RunDir.open(sys.argv[1]));print(server.pid, flush=True); "
        "time.sleep(600)"
    )
    import subprocess

    words = [sys.executable, "-c", program, str(rundir.path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        assert name_of_run(rundir.page_url() or "", rundir) == rundir.name
        driver.kill()
    until(lambda: command_line(pid) == "")


def test_a_server_by_hand_takes_what_the_run_says(run: tuple[RunDir, QueryQueue]) -> None:
    rundir, _ = run
    with command("serve", str(rundir.path)) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert said.startswith(f"labeling page of run {rundir.name}: http://127.0.0.1:")


def test_labelers_are_told_once_a_second_how_far_the_run_is(
    run: tuple[RunDir, QueryQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, queue = run
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    status = RunStatus(query_actor=query_actor(pool=7))
    board = Noticeboard(queue)
    board.turn(lambda: status, env_steps=210, learning=False)
    warmup = {"env_steps": "210", "phase": "warm-up", "segments": "7"}
    assert queue.info() == warmup | {"segments_wanted": "10", "allowed": "3"}
    status = RunStatus(query_actor=query_actor(pool=9), reward_trainer=reward_trainer(version=1))
    board.turn(lambda: status, env_steps=300, learning=True)
    assert queue.info()["env_steps"] == "210", "too soon"
    now += 1.5
    board.turn(lambda: status, env_steps=300, learning=True)
    assert queue.info() == {
        "env_steps": "300",
        "segments": "9",
        "segments_wanted": "10",
        "allowed": "3",
        "phase": "learning",
        "reward_version": "1",
    }
