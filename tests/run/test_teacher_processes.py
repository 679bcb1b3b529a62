"""The teacher processes of a run: started again when they die, and never left behind."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlhp.run import children as module
from rlhp.run.children import TeacherProcesses
from rlhp.storage.rundir import RunDir
from rlhp.system.processes import NICENESS
from tests.fault_parts import command_line
from tests.labeling.parts import until
from tests.run.parts import ask, run_in

FIRST = {"name": "tests.run.teachers:First"}


@contextmanager
def labelers(rundir: RunDir, *, count: int = 1) -> Iterator[TeacherProcesses]:
    started = TeacherProcesses(rundir, count=count)
    try:
        yield started
    finally:
        started.stop()


def test_they_answer_under_a_name_each_and_leave_when_stopped(
    redis_url: str, tmp_path: Path
) -> None:
    rundir, queue = run_in(
        tmp_path, redis_url, labels={"teacher": {**FIRST, "latency_seconds": 0.05}}
    )
    ask(rundir, queue, 20)
    with labelers(rundir, count=2) as started:
        pids = started.pids()
        assert len(set(pids)) == 2
        mine = os.getpriority(os.PRIO_PROCESS, 0)
        niceness = {os.getpriority(os.PRIO_PROCESS, pid) for pid in pids}
        assert niceness == {max(NICENESS, mine)}, "never back toward 0"
        until(lambda: queue.stats().answered == 20)
        started.keep()
        assert started.pids() == pids
    assert [command_line(pid) for pid in pids] == ["", ""]
    stats = queue.stats()
    assert set(stats.labelers) <= {"teacher-0", "teacher-1"}
    assert stats.leased == 0


def test_one_that_is_killed_is_started_again_and_its_query_is_served_once_its_lease_ran_out(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow = {**FIRST, "latency_seconds": 0.3}
    rundir, queue = run_in(
        tmp_path, redis_url, labels={"teacher": slow}, query={"lease_seconds": 0.6}
    )
    ask(rundir, queue, 4)
    with labelers(rundir) as started:
        until(lambda: queue.stats().leased > 0)
        (pid,) = started.pids()
        os.kill(pid, signal.SIGKILL)
        with caplog.at_level(logging.WARNING, "rlhp.run.children"):
            until(lambda: started.keep() or started.pids() != [pid])  # type: ignore[func-returns-value]
        assert caplog.messages == ["labeler 0 died (exit code -9) and is started again"]
        until(lambda: queue.stats().answered == 4)
    assert queue.stats().expired >= 1
    assert set(queue.stats().labelers) == {"teacher-0"}


def test_a_teacher_that_keeps_failing_ends_the_run_with_its_last_words(
    redis_url: str, tmp_path: Path
) -> None:
    teacher = {"name": "tests.run.teachers:Fails"}
    rundir, queue = run_in(tmp_path, redis_url, labels={"teacher": teacher})
    ask(rundir, queue, 6)
    with labelers(rundir) as started:
        process = started._processes[0]
        until(lambda: process.poll() is not None)
        with pytest.raises(
            ChildProcessError,
            match=r"labeler 0 cannot work \(exit code 1\): error: teacher tests.run.teachers:Fails "
            r"failed 5 times in a row, .*RuntimeError: the camera is unplugged",
        ):
            started.keep()


def test_labelers_that_keep_dying_at_once_end_the_run_with_their_last_words(
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "MOST_EARLY_DEATHS", 2)
    rundir, queue = run_in(
        tmp_path, redis_url, labels={"teacher": {"name": "tests.run.teachers:Quits"}}
    )
    ask(rundir, queue, 6)
    with labelers(rundir) as started:
        until(lambda: started._processes[0].poll() is not None)
        started.keep()
        until(lambda: started._processes[0].poll() is not None)
        with pytest.raises(
            ChildProcessError, match=r"labeler 0 cannot work \(exit code 3\): goodbye"
        ):
            started.keep()
    died, ended = caplog.messages
    assert died == "labeler 0 died (exit code 3) and is started again"
    assert ended.startswith("labeler 0 ended, exit code 3; the end of ")
    assert ended.endswith("goodbye\n"), "what it said is in the run's log too"


def test_one_that_lived_for_a_while_may_die_any_number_of_times(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_EARLY_DEATHS", 1)
    monkeypatch.setattr(module, "TOO_SOON_SECONDS", 0.0)
    rundir, _ = run_in(tmp_path, redis_url, labels={"teacher": FIRST})
    with labelers(rundir) as started:
        for _ in range(2):
            started.keep()  # seen alive
            started._processes[0].kill()
            started._processes[0].wait()
            started.keep()
        assert started._processes[0].poll() is None


def test_a_labeler_does_not_outlive_whoever_started_it(redis_url: str, tmp_path: Path) -> None:
    rundir, queue = run_in(tmp_path, redis_url, labels={"teacher": FIRST})
    ask(rundir, queue, 1)
    with labelers(rundir) as started:
        process = started._processes[0]
        until(lambda: queue.stats().answered == 1)
        assert process.stdin is not None
        process.stdin.close()  # as the kernel does for a driver that was killed
        assert process.wait(60) == 0
    assert "teacher-0 leaves, stopped: 1 answers" in (rundir.path / "labeler-0.log").read_text()
