"""One process at a time in a run directory, also where two hosts share its disk."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from rlhp.errors import RlhpError
from rlhp.storage import lease
from rlhp.storage import lease as owners
from rlhp.storage.lease import Owner, TakenOver
from rlhp.storage.rundir import RunDir
from tests.small_runs import small


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    return RunDir.create(small(runs_dir=str(tmp_path), name="demo"), "small")


def left_by_another_host(rundir: RunDir, *, seconds_ago: float = 0.0) -> Path:
    """What a process of a host that shares the disk keeps there."""
    far = dataclasses.replace(Owner.here(rundir.path), host="far", machine="far boot", pid=77)
    file = rundir.path / lease.FILE
    file.write_text(far.to_json())
    os.utime(file, (time.time() - seconds_ago,) * 2)
    return file


def test_a_run_that_another_host_may_be_running_is_waited_for_and_refused_when_it_is_heard_of(
    rundir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "LOOK_EVERY_SECONDS", 0.01)
    file = left_by_another_host(rundir, seconds_ago=5)
    said: list[str] = []

    def beat(text: str) -> None:
        said.append(text)
        os.utime(file)

    with pytest.raises(
        RlhpError, match=rf"{rundir.path} belongs to process 77 on far.*since 20.*--take-over"
    ):
        rundir.running(say=beat).__enter__()
    assert len(said) == 1
    assert rundir.info().state == "created", "nothing is written where another one runs"


@pytest.mark.parametrize(("ago", "take_over"), [(61.0, False), (0.0, True)])
def test_one_that_is_silent_or_known_to_be_dead_is_replaced(
    rundir: RunDir, monkeypatch: pytest.MonkeyPatch, ago: float, take_over: bool
) -> None:
    monkeypatch.setattr(owners, "WATCH_SECONDS", 0.05)
    file = left_by_another_host(rundir, seconds_ago=ago)
    with rundir.running(take_over=take_over):
        assert rundir.lease.owner is not None
        assert Owner.from_json(file.read_text()).token == rundir.lease.owner.token
        rundir.lease.check()
    assert rundir.info().state == "finished"
    assert not file.exists()


def test_whoever_was_replaced_is_told_at_its_next_step_and_leaves_the_facts_alone(
    rundir: RunDir,
) -> None:
    def replaced() -> None:
        with rundir.running():
            left_by_another_host(rundir)
            rundir.update(host="far", pid=77)
            rundir.lease.check()

    with pytest.raises(TakenOver, match="process 77 on far"):
        replaced()
    assert (rundir.info().state, rundir.info().pid) == ("running", 77)
    assert (rundir.path / lease.FILE).exists()


@pytest.mark.parametrize("text", ["{", "", "[" * 60_000, '{"pid": [1], "token": null}'])
def test_a_damaged_or_vanished_lease_keeps_nobody_out(
    rundir: RunDir, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "LEASE_SECONDS", 0.05)
    monkeypatch.setattr(owners, "WATCH_SECONDS", 0.05)
    (rundir.path / lease.FILE).write_text(text)
    with rundir.running():
        (rundir.path / lease.FILE).unlink()
        rundir.lease.check()
    assert rundir.info().state == "finished"


def test_an_owner_gives_signs_of_life(rundir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "BEAT_SECONDS", 0.01)
    file = rundir.path / lease.FILE
    with rundir.running():
        os.utime(file, (1, 1))
        deadline = time.monotonic() + 30
        while file.stat().st_mtime < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_what_is_no_file_is_named_and_not_waited_for(rundir: RunDir) -> None:
    os.mkfifo(rundir.path / lease.FILE)
    with pytest.raises(RlhpError, match=lease.FILE):
        rundir.running().__enter__()
    (rundir.path / lease.FILE).unlink()
    (rundir.path / lease.FILE).mkdir()
    with pytest.raises(IsADirectoryError, match=lease.FILE):
        rundir.running().__enter__()
