"""The body of `rlhp label`: join a run at a Redis, answer with a teacher until the run is over."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rlhp.config import TeacherConfig
from rlhp.errors import RlhpError
from rlhp.labeling.teacher import make_teacher
from rlhp.labeling.worker import Counts, LabelerWorker, TeacherFailed
from rlhp.query.queue import QueryQueue, QueueUnavailable, list_runs, ping
from rlhp.rundir import RunDir
from rlhp.types import Teacher

REPORT_EVERY_SECONDS = 30.0
GRACE_SECONDS = 10.0


def run_labeler(
    url: str,
    *,
    run: str | None = None,
    teacher: TeacherConfig | None = None,
    name: str | None = None,
    seed: int = 0,
    lease_seconds: float = 60.0,
    poll_seconds: float = 0.1,
    until_eof: bool = False,
) -> int:
    """Answers queries of `run` at the Redis `url`; the exit code.

    Without `run` there must be exactly one open run there. 0 when the run was closed or on Ctrl-C (or
    SIGTERM), which gives the leases back; a second Ctrl-C does not wait for the teacher. 1 when the
    teacher kept failing. ValueError for a teacher or run that does not exist and for two that do not fit
    (a built-in teacher, a run that sends no env rewards), QueueUnavailable when
    `url` cannot be reached at the start; later absences of Redis are waited out. With `until_eof` the end of
    standard input is a Ctrl-C as well, so that a process which holds the other end is never outlived.
    """
    config = teacher if teacher is not None else TeacherConfig()
    judge = make_teacher(config, seed=seed)  # first of all: a misspelt name needs no Redis to be told
    chosen = run if run is not None else only_run(url)
    with QueryQueue(url, run=chosen, lease_seconds=lease_seconds) as queue:
        return _answer(queue, judge, config, name=name, poll_seconds=poll_seconds, until_eof=until_eof)


def _answer(
    queue: QueryQueue, judge: Teacher, config: TeacherConfig, *, name: str | None, poll_seconds: float, until_eof: bool
) -> int:
    known = queue.state != "missing"
    _refuse_to_guess(queue, config)
    worker = LabelerWorker(
        queue,
        judge,
        name=name or _own_name(),
        latency_seconds=config.latency_seconds,
        poll_seconds=poll_seconds,
    )
    _say(f"{worker.name} answers {'run' if known else 'the coming run'} {queue.run} as {config.name}; Ctrl-C to leave")

    def report(counts: Counts) -> None:
        _say(f"{worker.name}: {counts}")

    with _stopped_by_signals() as stop:
        if until_eof:
            threading.Thread(target=_stop_at_eof, args=(stop,), daemon=True).start()
        try:
            counts = worker.run(stop, report=report, report_every_seconds=REPORT_EVERY_SECONDS)
        except TeacherFailed as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return 1
        _say(f"{worker.name} leaves, {'stopped' if stop.is_set() else 'the run is closed'}: {counts}")
    return 0


def _refuse_to_guess(queue: QueryQueue, config: TeacherConfig) -> None:
    """ValueError where a built-in teacher would join a run that keeps its env rewards to itself."""
    if ":" not in config.name and queue.info().get("shares_env_reward") == "no":
        raise RlhpError(
            f"the built-in teacher {config.name!r} judges by env rewards, and run {queue.run} sends none with its "
            "queries; set labels.share_env_reward=true in that run (train --resume RUN --set ...), or answer with a "
            "teacher that looks at observations: --teacher package.module:Name"
        )


def queue_of(rundir: RunDir) -> str:
    """Where the queue of a run is. RlhpError where there is none, or none any more, since an embedded one ends too."""
    url = rundir.redis_url()
    if url is None:
        raise RlhpError(f"{rundir.path}: its queue was never started; start the run with rlhp train first")
    state = rundir.info().state
    if rundir.redis_url_file.exists() or state in ("created", "running"):
        return url
    try:
        ping(url)
    except QueueUnavailable:
        then = "" if state == "finished" else f"; go on with rlhp train --resume {rundir.path}, which starts both again"
        raise RlhpError(
            f"{rundir.path}: the run is {state}, and its embedded Redis, which held the queue, ended with it{then}"
        ) from None
    return url


def only_run(url: str) -> str:
    runs = list_runs(url)
    running = [run for run in runs if _state(url, run) != "closed"]
    if len(running) == 1:
        return running[0]
    if running:
        raise RlhpError(f"several runs are open at this Redis: {', '.join(running)}; choose one with --run NAME")
    rest = f"only closed ones ({', '.join(runs)})" if runs else "none"
    raise RlhpError(
        f"a labeler joins an open run, but this Redis has {rest}; start one, or name a coming one with --run"
    )


def _state(url: str, run: str) -> str:
    with QueryQueue(url, run=run) as queue:
        return queue.state


def _own_name() -> str:
    """Unique to this process, in the letters that the queue allows for a labeler."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:50]
    return f"teacher@{host}-{os.getpid()}"


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second acts as usual. Main thread only, else never set."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        # From a thread: this handler may have interrupted stop.wait, which holds the event's lock.
        threading.Thread(target=stop.set).start()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, ask_to_stop)
    try:
        yield stop
    finally:
        restore()


def _stop_at_eof(stop: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stop.set()
    time.sleep(GRACE_SECONDS)
    os._exit(1)  # the teacher hangs, and nobody is left to kill it


def _say(line: str) -> None:
    print(line, flush=True)
