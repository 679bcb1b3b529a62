"""The process that `rlhp label` is: which run it joins, how it leaves, what it says."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlhp.config.schema import TeacherConfig
from rlhp.labeling.worker import run_labeler
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue, QueueUnavailable
from rlhp.types import Query
from tests.labeling.parts import ask, opened, put, segment, until


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """The address of a server with no run in it yet."""
    server = EmbeddedRedis(folder / "server")
    try:
        yield server.start()
    finally:
        server.stop()


def labeler(*arguments: str) -> subprocess.Popen[str]:
    code = (
        "import sys; from rlhp.labeling.worker import run_labeler; "
        "sys.exit(run_labeler(sys.argv[1], run=sys.argv[2]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_labeler_process_leaves_on_a_signal_with_exit_code_0(
    queue: QueryQueue, number: signal.Signals
) -> None:
    ask(queue, 3)
    with labeler(queue.url, queue.run) as process:
        assert process.stdout is not None
        assert f"answers run {queue.run} as oracle; Ctrl-C to leave" in process.stdout.readline()
        until(lambda: queue.stats().answered == 3)
        process.send_signal(number)
        assert "leaves, stopped: 3 answers (0 late), 0 skipped" in process.stdout.read()
        assert process.wait() == 0


def close_when_answered(queue: QueryQueue, count: int) -> None:
    until(lambda: queue.stats().answered == count)
    queue.close()


def test_run_labeler_takes_the_only_open_run_and_leaves_when_it_is_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_server(tmp_path) as url:
        with pytest.raises(
            ValueError, match=r"a labeler joins an open run, but this Redis has none; start one, or"
        ):
            run_labeler(url)
        old, new = opened(url), opened(url)
        with pytest.raises(
            ValueError,
            match=r"several runs are open at this Redis: test-.*, test-.*; choose one with --run",
        ):
            run_labeler(url)
        old.close()
        ask(new, 2)
        closing = threading.Thread(target=close_when_answered, args=(new, 2))
        closing.start()
        assert run_labeler(url, name="ann", teacher=TeacherConfig(name="noisy"), seed=1) == 0
        closing.join()
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"ann answers run {new.run} as noisy; Ctrl-C to leave"
        assert (
            lines[-1]
            == "ann leaves, the run is closed: 2 answers (0 late), 0 skipped, 0 extra, 0 denied"
        )
        with pytest.raises(
            ValueError, match=r"this Redis has only closed ones \(test-.*, test-.*\)"
        ):
            run_labeler(url)


def test_run_labeler_ends_with_code_1_when_the_teacher_keeps_failing(
    queue: QueryQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        put(
            queue,
            Query(
                id=f"q{number}",
                candidates=(
                    segment(None, name=f"a{number}", steps=2),
                    segment(None, name=f"b{number}", steps=2),
                ),
            ),
        )
    assert run_labeler(queue.url, run=queue.run, name="ann") == 1
    error = capsys.readouterr().err
    assert "error: teacher rlhp.labeling.teachers:BPrefTeacher failed 5 times in a row" in error
    assert "set labels.share_env_reward = true" in error


@pytest.mark.parametrize("name", ["oracle", "skip"])
def test_a_built_in_teacher_is_sent_away_from_a_run_that_keeps_its_env_rewards(
    queue: QueryQueue, name: str
) -> None:
    queue.set_info({"shares_env_reward": "no"})
    ask(queue, 1)
    with pytest.raises(
        ValueError, match=rf"the built-in teacher '{name}' judges by env rewards, and run test-"
    ) as caught:
        run_labeler(queue.url, run=queue.run, teacher=TeacherConfig(name=name))
    assert "set labels.share_env_reward=true in that run" in str(caught.value)
    assert queue.stats().leased == 0
    assert queue.stats().labelers == {}


def test_a_teacher_of_ones_own_may_join_a_run_that_keeps_its_env_rewards(
    queue: QueryQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    queue.set_info({"shares_env_reward": "no"})
    queue.close()
    own = TeacherConfig(name="tests.labeling.own_teacher:TallerIsBetter")
    assert run_labeler(queue.url, run=queue.run, teacher=own) == 0
    assert "as tests.labeling.own_teacher:TallerIsBetter" in capsys.readouterr().out


def test_run_labeler_names_a_misspelled_teacher_before_it_looks_for_redis() -> None:
    with pytest.raises(ValueError, match="did you mean 'oracle'"):
        run_labeler("redis://127.0.0.1:1/0", teacher=TeacherConfig(name="orakle"))


def test_run_labeler_tells_an_address_where_nothing_answers() -> None:
    with pytest.raises(QueueUnavailable):
        run_labeler("redis://127.0.0.1:1/0", run="any")
