"""Kill -9 in a real distributed run: it goes on, and no answer is lost or counted
twice.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rlhp.storage.metrics import without_rewinds
from rlhp.storage.rundir import RunDir
from tests.fault_parts import (
    PATIENCE_SECONDS,
    Driver,
    check_answers,
    check_versions,
    command_line,
    kill,
)

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(600)]

VICTIMS = {
    "labeler": "rlhp label",
    "redis": "-server 127.0.0.1:",
    "reward trainer": "ray::RewardTrainerProcess",
    "reward model": "ray::RewardModelProcess",
    "query actor": "ray::QueryActorProcess",
    "env runner": "ray::ColumnarEnvRunner",
    "learner": "ray::_WrappedExecutable",
    "driver": "rlhp train --resume",
}
"""What stands in the command line of each."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """One run for all the kills, in the order of the file."""
    with Driver(tmp_path_factory.mktemp("faults")) as driver:
        driver.start("--keep")
        yield driver


def test_nobody_of_a_run_listens_beyond_loopback(driver: Driver) -> None:
    driver.until(lambda: driver.newest("reward/version") >= 1)
    everybody = driver.processes()
    listening = [
        each
        for each in psutil.net_connections("inet")
        if each.status == "LISTEN" and each.pid in everybody
    ]
    assert {command_line(each.pid).split()[0].rpartition("/")[2] for each in listening} >= {
        "gcs_server",
        "raylet",
    }
    beyond = {everybody[each.pid] for each in listening if "127.0.0.1" not in each.laddr.ip}
    assert all(VICTIMS["learner"] in one for one in beyond), (
        "torch's meeting point of learners that are actors"
    )


@pytest.mark.parametrize("victim", VICTIMS)
def test_the_run_goes_on_when_a_process_is_killed(driver: Driver, victim: str) -> None:
    driver.until(lambda: driver.newest("reward/version") >= 2)
    if victim == "labeler":
        # so that it dies with a query in its hands
        driver.until(lambda: driver.newest("queue/leased") > 0)
    before = driver.pids(VICTIMS[victim])
    assert before, f"no {victim} among {driver.processes()}"
    one = min(before)
    kill([one])
    driver.until(lambda: len(driver.pids(VICTIMS[victim]) - {one}) == len(before))
    driver.goes_on()


def test_the_run_goes_on_when_processes_are_there_and_say_nothing(driver: Driver) -> None:
    stopped = {
        min(driver.pids(VICTIMS[victim])) for victim in ("env runner", "learner", "reward trainer")
    }
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    driver.until(lambda: not stopped & driver.processes().keys())
    driver.goes_on()
    assert "going on from the checkpoint at" in driver.output.read_text()


def test_sigterm_ends_it_with_a_checkpoint_and_every_answer_on_disk(driver: Driver) -> None:
    driver.until(lambda: driver.newest("reward/version") >= 2)
    driver.process.terminate()  # as a job that is stopped
    assert driver.wait() == 130
    said = driver.output.read_text()
    assert "stopping after this iteration, with a checkpoint; Ctrl-C again stops at once" in said
    assert "stopped after" in said
    assert f"continue with: rlhp train --resume {driver.path}" in said
    assert "Traceback" not in said
    assert "the run's process was killed (SIGKILL) after" in said
    info = RunDir.open(driver.path).info()
    assert (info.state, info.resumed) == ("interrupted", 1)
    assert info.restarts >= 2
    steps = [row["env_steps"] for row in without_rewinds(driver.rows())]
    assert (driver.path / "checkpoints" / f"step-{steps[-1]:09d}" / "rlhp.json").is_file()
    check_answers(driver.path)
    check_versions(driver.rows())


def test_a_killed_driver_leaves_nobody_behind_and_its_run_can_be_resumed(tmp_path: Path) -> None:
    with Driver(tmp_path) as driver:
        driver.start()
        # Warm-up: the query actor forgets its segments, so steps are needed again, from
        # env runners that were killed.
        driver.until(lambda: driver.newest("segments/pool") > 0)
        kill(driver.pids(VICTIMS["env runner"]) | driver.pids(VICTIMS["query actor"]))
        driver.until(lambda: driver.newest("reward/version") >= 2)
        driver.until(lambda: any((driver.path / "checkpoints").glob("step-*")))
        everybody = ours(driver)
        kill([driver.process.pid])
        driver.process.wait()
        wait_until_gone(everybody)

        total = int(driver.newest("env_steps")) + 3000
        driver.start("--set", f"learner.total_env_steps={total}")
        assert driver.wait() == 0, driver.said()
        info = RunDir.open(driver.path).info()
        assert (info.state, info.resumed) == ("finished", 1)
        check_answers(driver.path)
        check_versions(driver.rows())


def test_a_second_ctrl_c_does_not_wait_and_leaves_nobody_behind(tmp_path: Path) -> None:
    with Driver(tmp_path) as driver:
        # the first Ctrl-C alone would take for ever
        driver.start("--set", "evaluation.episodes=1000000")
        driver.until(lambda: driver.newest("labels/asked") > 0)
        everybody = ours(driver)
        driver.interrupt()
        driver.until(lambda: "Ctrl-C again stops at once" in driver.output.read_text())
        driver.until(lambda: any((driver.path / "checkpoints").glob("step-*")))
        driver.interrupt()
        assert driver.wait() == 130
        assert driver.output.read_text().endswith("interrupted\n")
        assert RunDir.open(driver.path).info().state == "interrupted"
        wait_until_gone(everybody)


def ours(driver: Driver) -> set[int]:
    """Every process of the run but Ray's own, some of which take a minute to notice
    that nobody is there.
    """
    return {pid for words in (*VICTIMS.values(), "supervisor.py") for pid in driver.pids(words)}


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := [words for pid in pids if (words := command_line(pid))]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.1)
