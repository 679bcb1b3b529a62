"""A child process: what it says, how it ends, and that it ends with whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from rlhp.system.processes import Child
from tests.fault_parts import command_line
from tests.labeling.parts import until

WAITS = "import sys; print('starts', flush=True); sys.stdin.read(); print('leaves')"
STAYS = "import sys, time; print('starts', flush=True); sys.stdin.read(); time.sleep(600)"


def program(text: str) -> list[str]:
    return [sys.executable, "-S", "-c", text]


def test_it_leaves_at_the_end_of_its_input_and_all_it_said_is_in_its_log(tmp_path: Path) -> None:
    child = Child(program(WAITS), log=tmp_path / "log")
    child.start()
    assert child.poll() is None
    assert child.end(grace_seconds=30) == 0
    assert child.said() == "starts\nleaves\n"
    assert child.last_words() == "leaves"


def test_one_that_was_killed_is_started_again_in_a_session_of_its_own(tmp_path: Path) -> None:
    child = Child(program(WAITS), log=tmp_path / "log")
    pids = []
    for _ in range(2):
        child.start()
        pids.append(child.pid)
        assert os.getsid(child.pid) == child.pid
        until(lambda: child.said().count("starts") == len(pids))
        if len(pids) == 1:
            child.kill()
            assert child.wait(30) == -signal.SIGKILL
    assert pids[0] != pids[1]
    assert child.age_seconds < 30
    assert child.end(grace_seconds=30) == 0


def test_one_that_does_not_leave_in_time_is_killed(tmp_path: Path) -> None:
    child = Child(program(STAYS), log=tmp_path / "log")
    child.start()
    until(lambda: child.said() != "")
    assert child.end(grace_seconds=0.05) == -signal.SIGKILL
    child.signal(signal.SIGTERM)  # to nobody


def test_one_that_talks_is_heard_apart_from_its_last_words() -> None:
    text = "import sys; print(input() * 2, flush=True); sys.exit('too much')"
    child = Child(program(text), talks=True, env={"PYTHONIOENCODING": "ascii"}, stands_back=True)
    child.start()
    assert os.getpriority(os.PRIO_PROCESS, child.pid) >= 10
    child.stdin.write(b"ab\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"abab\n"
    assert child.end(grace_seconds=30) == 1
    assert child.last_words() == "too much"


def test_it_does_not_outlive_whoever_started_it(tmp_path: Path) -> None:
    starter = (
        "import sys, time; from pathlib import Path; from rlhp.system.processes import Child; "
        f"child = Child([sys.executable, '-S', '-c', {WAITS!r}], log=Path(sys.argv[1])); "
        "child.start(); print(child.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", starter, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        until(lambda: (tmp_path / "log").read_text() == "starts\n")
        process.kill()
    until(lambda: command_line(pid) == "")
    assert (tmp_path / "log").read_text() == "starts\nleaves\n"
