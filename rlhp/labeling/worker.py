"""A labeler in a process of its own: leases queries, asks a teacher, answers through
the queue.

    produces   answers and skips; sending one twice changes nothing
    waits for  a query, polled with jitter
    woken by   the query actor asking, or the lease of another labeler running out
    alone      Redis away: keeps what it decided and tries again; run closed: leaves

It needs the address of a Redis and nothing else of the run: no torch, no ray, no shared
disk.

The body of `rlhp label`: join a run at a Redis, answer with a teacher until the run is
over.
"""

from __future__ import annotations

import logging
import os
import random
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from rlhp.config.schema import TeacherConfig
from rlhp.errors import RlhpError
from rlhp.labeling.teachers import make_teacher
from rlhp.queue.queue import Lease, QueryQueue, QueueUnavailable, explain, list_runs, ping
from rlhp.queue.records import BodyError, query_from, segment_ids
from rlhp.storage.rundir import RunDir
from rlhp.types import Answer, DecodeError, Query, Teacher, decode, parse_answer

logger = logging.getLogger(__name__)

LEASES = 2
"""Queries held at a time: one in work and one fetched ahead."""
FAILURES_IN_A_ROW = 5
LONGEST_BACKOFF_SECONDS = 5.0


class TeacherFailed(RlhpError, RuntimeError):
    """The teacher failed too often in a row to be trusted with further queries."""


@dataclass(kw_only=True, slots=True)
class Counts:
    """What became of the queries a worker leased."""

    answers: int = 0
    """Answers the queue took, the late ones included."""
    late: int = 0
    """Of these, given after the lease had run out and before anybody else's."""
    extra: int = 0
    """Given when somebody else's answer had already settled the query."""
    skipped: int = 0
    """The teacher had no answer or failed, or the query could not be read."""
    denied: int = 0
    """Refused by the queue."""

    @property
    def settled(self) -> int:
        """Queries dealt with, one way or another."""
        return self.answers + self.extra + self.skipped + self.denied

    def __str__(self) -> str:
        return (
            f"{self.answers} answers ({self.late} late), {self.skipped} skipped, {self.extra} "
            f"extra, {self.denied} denied"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verdict:
    """What the teacher said about a lease; kept until the queue has it."""

    lease: Lease
    answer: Answer | None
    latency_ms: int


class LabelerWorker:
    """One labeler: `step` handles what can be leased now, `run` goes on until the run
    is closed.

    `name` tells people apart, so it is stable over restarts; each worker is a page of
    its own, so two of the same name never share a lease. A query that the teacher
    cannot answer is skipped, which the queue remembers for this name: it is not offered
    to it again.
    """

    def __init__(
        self,
        queue: QueryQueue,
        teacher: Teacher,
        *,
        name: str,
        latency_seconds: float = 0.0,
        poll_seconds: float = 0.1,
        kind: str = "teacher",
    ) -> None:
        self.name = name
        self.page = f"{name}:{os.getpid()}:{secrets.token_hex(4)}"
        self.counts = Counts()
        self._queue = queue
        self._teacher = teacher
        self._latency_seconds = latency_seconds
        self._poll_seconds = poll_seconds
        self._kind = kind
        self._stop = threading.Event()
        self._unsent: list[_Verdict] = []
        self._failures = 0
        self._last_failure = ""  # as text: a kept traceback would keep this worker alive
        self._warned: set[str] = set()
        self._jitter = random.Random(self.page)

    def step(self) -> int:
        """Leases at most two queries and settles them; the number of answers the queue
        took.

        QueueUnavailable when Redis is away: what was decided but not sent goes out with
        the next step. TeacherFailed after five failures in a row.
        """
        before = self.counts.answers
        self._send()
        leases = self._queue.lease(labeler=self.name, page=self.page, n=LEASES)
        if leases:
            with self._heartbeat():
                self._settle(leases)
        return self.counts.answers - before

    def run(
        self,
        stop: threading.Event,
        *,
        report: Callable[[Counts], None] | None = None,
        report_every_seconds: float = 30.0,
    ) -> Counts:
        """Steps until the run is closed or `stop` is set, through any absence of Redis.

        Leases still held are given back on the way out. TeacherFailed as in `step`.
        """
        self._stop = stop
        tries = 0
        reported = time.monotonic()
        try:
            while not stop.is_set():
                try:
                    pause = self._turn()
                except QueueUnavailable as error:
                    if not tries:
                        logger.warning(
                            "labeler %s lost the queue and keeps trying: %s", self.name, error
                        )
                    tries += 1
                    stop.wait(self._backoff(tries))
                    continue
                if tries:
                    logger.warning(
                        "labeler %s reached the queue again at try %d", self.name, tries + 1
                    )
                    tries = 0
                if pause is None:
                    break
                if report is not None and time.monotonic() - reported >= report_every_seconds:
                    report(self.counts)
                    reported = time.monotonic()
                stop.wait(pause)
        finally:
            self._leave()
        return self.counts

    def _turn(self) -> float | None:
        """One look at the queue: seconds until the next, or None when the run is
        closed.
        """
        state = self._queue.state
        if state == "closed":
            return None
        if state == "missing":
            self._warn_once(
                state, "labeler %s: its run is not at this Redis (yet); waiting for it", self.name
            )
            return 10 * self._poll()
        return 0.0 if self.step() else self._poll()

    def _settle(self, leases: list[Lease]) -> None:
        payloads = self._payloads(leases)
        for lease in leases:
            if self._stop.is_set():
                return
            began = time.monotonic()
            answer = self._judge(lease, payloads)
            if self._latency_seconds and self._stop.wait(self._latency_seconds):
                return
            latency_ms = round(1000 * (time.monotonic() - began))
            self._unsent.append(_Verdict(lease=lease, answer=answer, latency_ms=latency_ms))
            self._send()
            if self._failures >= FAILURES_IN_A_ROW:
                raise TeacherFailed(
                    f"teacher {_name(self._teacher)} failed {FAILURES_IN_A_ROW} times in a row, "
                    f"the last time on query {lease.query} ({self._last_failure}); mend it and "
                    "start the labeler again"
                )

    def _payloads(self, leases: list[Lease]) -> Mapping[str, bytes]:
        wanted: set[str] = set()
        for lease in leases:
            with suppress(BodyError):  # told when this query's turn comes
                wanted.update(segment_ids(lease.body))
        return self._queue.segments(sorted(wanted)) if wanted else {}

    def _judge(self, lease: Lease, payloads: Mapping[str, bytes]) -> Answer | None:
        """The teacher's answer, or None to skip the query; whatever went wrong is
        logged with its id.
        """
        try:
            query = _read(lease, payloads)
        except (BodyError, DecodeError) as error:
            logger.warning("query %s skipped, it cannot be read: %s", lease.query, error)
            return None
        try:
            answer: object = self._teacher.answer(query)
            if answer is not None and not isinstance(answer, Answer):
                raise TypeError(
                    f"it answered {answer!r}; return an rlhp.types.Answer, or None to skip the "
                    "query"
                )
            if answer is not None:
                parse_answer(answer, candidates=len(query.candidates))
        except BaseException as error:  # a teacher is anybody's code, and may call sys.exit
            if isinstance(error, KeyboardInterrupt):
                raise
            self._failures += 1
            self._last_failure = _line(error)
            logger.warning(
                "query %s skipped, teacher %s failed: %s",
                lease.query,
                _name(self._teacher),
                self._last_failure,
                exc_info=self._failures == 1,
            )
            return None
        self._failures = 0
        return answer

    def _send(self) -> None:
        """Hands over every verdict the queue has not got yet."""
        while self._unsent:
            verdict = self._unsent[0]
            lease = verdict.lease
            status: str
            if verdict.answer is None:
                status = self._queue.skip(
                    query=lease.query, labeler=self.name, page=self.page, token=lease.token
                )
            else:
                status = self._queue.answer(
                    query=lease.query,
                    labeler=self.name,
                    page=self.page,
                    token=lease.token,
                    rev=lease.rev,
                    answer=verdict.answer,
                    meta={"kind": self._kind, "latency_ms": verdict.latency_ms},
                )
            self._unsent.pop(0)
            self._count(verdict, status)

    def _count(self, verdict: _Verdict, status: str) -> None:
        if status in ("denied", "gone", "conflict"):
            self.counts.denied += 1
            self._warn_once(
                status,
                "query %s of %s: %s (warned once)",
                verdict.lease.query,
                self.name,
                explain(status),
            )
        elif verdict.answer is None:
            self.counts.skipped += 1
        elif status == "extra":
            self.counts.extra += 1
        else:  # ok; late; same, when the reply to an earlier send was lost
            self.counts.answers += 1
            self.counts.late += status == "late"

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Keeps this page's leases alive while the teacher thinks or the latency
        passes.
        """
        done = threading.Event()
        pause = self._queue.lease_seconds / 3

        def beat() -> None:
            # a teacher that hangs loses its leases to the queue's own limit
            while not done.wait(pause):
                with suppress(QueueUnavailable):  # the next beat, or the answer itself, will tell
                    self._queue.extend(page=self.page)

        thread = threading.Thread(target=beat, name=f"heartbeat of {self.page}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _leave(self) -> None:
        """Sends what was decided and gives the rest back, if Redis can be reached."""
        with suppress(QueueUnavailable):
            self._send()
            self._queue.release(page=self.page)

    def _poll(self) -> float:
        return self._poll_seconds * self._jitter.uniform(0.5, 1.5)

    def _backoff(self, tries: int) -> float:
        return float(
            min(LONGEST_BACKOFF_SECONDS, 0.1 * 2 ** min(tries, 10)) * self._jitter.uniform(0.5, 1.0)
        )

    def _warn_once(self, what: str, message: str, *values: object) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning(message, *values)


def _read(lease: Lease, payloads: Mapping[str, bytes]) -> Query:
    present = [id_ for id_ in segment_ids(lease.body) if id_ in payloads]
    return query_from(lease.body, {id_: decode(payloads[id_]) for id_ in present})


def _name(teacher: Teacher) -> str:
    kind = type(getattr(teacher, "wraps", teacher))
    return f"{kind.__module__}:{kind.__qualname__}"


def _line(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


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

    Without `run` there must be exactly one open run there. 0 when the run was closed or
    on Ctrl-C (or SIGTERM), which gives the leases back; a second Ctrl-C does not wait
    for the teacher. 1 when the teacher kept failing. ValueError for a teacher or run
    that does not exist and for two that do not fit (a built-in teacher, a run that
    sends no env rewards), QueueUnavailable when `url` cannot be reached at the start;
    later absences of Redis are waited out. With `until_eof` the end of standard input
    is a Ctrl-C as well, so that a process which holds the other end is never outlived.
    """
    config = teacher if teacher is not None else TeacherConfig()
    # first of all: a misspelled name needs no Redis to be told
    judge = make_teacher(config, seed=seed)
    chosen = run if run is not None else only_run(url)
    with QueryQueue(url, run=chosen, lease_seconds=lease_seconds) as queue:
        return _answer(
            queue, judge, config, name=name, poll_seconds=poll_seconds, until_eof=until_eof
        )


def _answer(
    queue: QueryQueue,
    judge: Teacher,
    config: TeacherConfig,
    *,
    name: str | None,
    poll_seconds: float,
    until_eof: bool,
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
    _say(
        f"{worker.name} answers {'run' if known else 'the coming run'} {queue.run} as "
        f"{config.name}; Ctrl-C to leave"
    )

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
        _say(
            f"{worker.name} leaves, {'stopped' if stop.is_set() else 'the run is closed'}: {counts}"
        )
    return 0


def _refuse_to_guess(queue: QueryQueue, config: TeacherConfig) -> None:
    """ValueError where a built-in teacher would join a run that keeps its env rewards
    to itself.
    """
    if ":" not in config.name and queue.info().get("shares_env_reward") == "no":
        raise RlhpError(
            f"the built-in teacher {config.name!r} judges by env rewards, and run {queue.run} "
            "sends none with its queries; set labels.share_env_reward=true in that run (train "
            "--resume RUN --set ...), or answer with a teacher that looks at observations: "
            "--teacher package.module:Name"
        )


def queue_of(rundir: RunDir) -> str:
    """Where the queue of a run is. RlhpError where there is none, or none any more,
    since an embedded one ends too.
    """
    url = rundir.redis_url()
    if url is None:
        raise RlhpError(
            f"{rundir.path}: its queue was never started; start the run with rlhp train first"
        )
    state = rundir.info().state
    if rundir.redis_url_file.exists() or state in ("created", "running"):
        return url
    try:
        ping(url)
    except QueueUnavailable:
        then = (
            ""
            if state == "finished"
            else f"; go on with rlhp train --resume {rundir.path}, which starts both again"
        )
        raise RlhpError(
            f"{rundir.path}: the run is {state}, and its embedded Redis, which held the queue, "
            f"ended with it{then}"
        ) from None
    return url


def only_run(url: str) -> str:
    runs = list_runs(url)
    running = [run for run in runs if _state(url, run) != "closed"]
    if len(running) == 1:
        return running[0]
    if running:
        raise RlhpError(
            f"several runs are open at this Redis: {', '.join(running)}; choose one with --run NAME"
        )
    rest = f"only closed ones ({', '.join(runs)})" if runs else "none"
    raise RlhpError(
        f"a labeler joins an open run, but this Redis has {rest}; start one, or name a coming one "
        "with --run"
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
    """An event that the first Ctrl-C or SIGTERM sets; the second acts as usual. Main
    thread only, else never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        # From a thread: this handler may have interrupted stop.wait, which holds the
        # event's lock.
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
