"""Programs that run beside a driver: teachers, the labeling page, and whoever starts
the driver again.

A run starts its teachers as anybody could, by `rlhp label RUN`. One that dies is
started again; its lease runs out and the query is served to somebody else. One that
keeps dying at once ends the run, with its own last words. None outlives the run,
however that ends: each holds one end of a pipe, which the kernel closes.

A run of `labels.source=human` starts its page by `rlhp serve RUN`. This process holds
the listening socket and hands it down, so the address stays while the server is started
again: whoever connects meanwhile waits instead of being refused. A page that cannot
work is said once and tried again; it never ends the run, which other labelers may
serve. It does not outlive the run: it holds one end of a pipe.

`rlhp train --keep` is a small process that resumes the run whenever the run's own
process is killed. The driver holds policy and optimizer, so it is the largest process
of a run and the first that a machine short of memory kills. Everything else of a run is
restarted by the driver or by Ray; this restarts the driver. What ends with an exit code
has ended for a reason that it said, and stays ended.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlhp.config.schema import PageConfig
from rlhp.errors import RoleFailed
from rlhp.files import write_whole
from rlhp.labeling.page.address import address_of, bound, link_token
from rlhp.queue.queue import QueryQueue
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from rlhp.system.processes import Child

log = logging.getLogger(__name__)

TOO_SOON_SECONDS = 10.0
MOST_EARLY_DEATHS = 5
GRACE_SECONDS = 5.0
MOST_SAID = 20_000
"""Characters of a labeler's log that are repeated in the run's."""


class TeacherProcesses:
    """`count` labeler processes; call `keep` now and then."""

    def __init__(self, rundir: RunDir, *, count: int) -> None:
        self._processes = [self._labeler(rundir, index) for index in range(count)]
        self._settled: set[int] = set()
        self._early_deaths = 0
        for process in self._processes:
            process.start()

    def keep(self) -> None:
        """Start again what has died; ChildProcessError when they keep dying at once."""
        for index, process in enumerate(self._processes):
            code = process.poll()
            if code is None:
                if process.age_seconds >= TOO_SOON_SECONDS:
                    self._settled.add(index)
                    self._early_deaths = 0
                continue
            # Judged by when it was last seen alive: between two calls may lie more than
            # a short life.
            self._early_deaths += index not in self._settled
            self._settled.discard(index)
            if self._early_deaths >= MOST_EARLY_DEATHS or code == 1:
                said = process.said()[-MOST_SAID:]
                log.error(
                    "labeler %d ended, exit code %d; the end of %s:\n%s",
                    index,
                    code,
                    process.log,
                    said,
                )
                raise RoleFailed(
                    f"labeler {index} cannot work (exit code {code}): {process.last_words()}"
                )
            log.warning("labeler %d died (exit code %d) and is started again", index, code)
            process.start()

    def pids(self) -> list[int]:
        """Process ids, for `rlhp status` and for tests that kill one."""
        return [process.pid for process in self._processes]

    def stop(self) -> None:
        """Ask them to leave, which gives their leases back; kill those that do not."""
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self._processes:
            process.end(grace_seconds=max(0.1, deadline - time.monotonic()))

    def _labeler(self, rundir: RunDir, index: int) -> Child:
        who = ["--name", f"teacher-{index}", "--until-eof"]
        # Answers are wanted soon, env steps sooner: on a small machine a teacher takes
        # what they leave.
        return Child(
            [sys.executable, "-m", "rlhp", "label", str(rundir.path), *who],
            log=rundir.path / f"labeler-{index}.log",
            stands_back=True,
        )


SOON_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 30.0
PAGE_GRACE_SECONDS = 8.0
MOST_LOG_BYTES = 1_000_000
LOOK_SECONDS = 5.0
"""Between two looks at the size of page.log."""


@contextmanager
def page_server(
    config: PageConfig, rundir: RunDir, queue: QueryQueue, *, say: Callable[[str], None]
) -> Iterator[None]:
    """Serve the page for the length of a block, and say the link that opens it, to
    whoever started the run alone.
    """
    server = PageServer(config, rundir)
    try:
        say(
            "label at "
            f"{server.address}/#token={link_token(queue.url, run=queue.run, rundir=rundir)}"
        )
        yield
    finally:
        server.stop()


class PageServer:
    """One server process on a socket of this one, watched by a thread that starts it
    again.
    """

    def __init__(self, config: PageConfig, rundir: RunDir) -> None:
        """ValueError for a host that is not this machine's; a port that is taken
        becomes a free one.
        """
        self._log = rundir.path / "page.log"
        self._socket = bound(config.host, config.port, or_free=True)
        self.address = address_of(self._socket)
        write_whole(rundir.page_url_file, self.address + "\n")
        self._stopping = threading.Event()
        socket = self._socket.fileno()
        how = ["--socket", str(socket), "--until-eof"]
        self._server = Child(
            [sys.executable, "-m", "rlhp", "serve", str(rundir.path), *how],
            log=self._log,
            pass_fds=[socket],
        )
        self._server.start()
        self._watcher = threading.Thread(target=self._watch, name="labeling page", daemon=True)
        self._watcher.start()
        self._trimmer = threading.Thread(target=self._trim, name="page log", daemon=True)
        self._trimmer.start()

    @property
    def pid(self) -> int:
        """Of the present server process, for tests that kill it."""
        return self._server.pid

    def stop(self) -> None:
        """Let it finish the replies under way; kill it if it does not."""
        self._stopping.set()
        self._server.terminate()
        self._watcher.join(PAGE_GRACE_SECONDS)
        if self._watcher.is_alive():
            self._server.kill()
        self._watcher.join()
        self._trimmer.join()
        self._socket.close()

    def _watch(self) -> None:
        pause = 0.0
        while True:
            code = self._server.wait()
            if self._stopping.is_set():
                break
            soon = self._server.age_seconds <= SOON_SECONDS
            pause = min(LONGEST_PAUSE_SECONDS, 1 + 2 * pause) if soon else 0.0
            log.warning(
                "the labeling page died (exit code %d) and is started again: %s",
                code,
                self._server.last_words(),
            )
            if self._stopping.wait(pause):
                break
            self._server.start()
            if self._stopping.is_set():  # stop() terminated the one before
                self._server.terminate()
        self._server.end(grace_seconds=0)

    def _trim(self) -> None:
        """Keep page.log small, and what was in it before: the server appends, so it
        goes on at the new end.
        """
        while not self._stopping.wait(LOOK_SECONDS):
            if self._log.stat().st_size > MOST_LOG_BYTES:
                shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
                os.truncate(self._log, 0)


PAUSE_SECONDS = 1.0
"""So that what the dead left behind is gone: they all hear of it within that time."""


def keep(
    rundir: RunDir, *, most: int, say: Callable[[str], None], options: Sequence[str] = ()
) -> int:
    """Train to the end in a process of its own; its exit code. 1 after `most` deaths in
    a row without a new env step.

    Ctrl-C and SIGTERM are the run's, and end both. Killed itself, this leaves the run
    going on, kept by nobody.
    """
    command = [sys.executable, "-m", "rlhp", "train", "--resume", str(rundir.path), *options]
    keeper = _Keeper(command)
    in_a_row, reached = 0, -1
    while True:
        code = keeper.run()
        if code >= 0 or keeper.stopping.is_set():
            return code if code >= 0 else 128 - code
        steps = max(
            (row.get("env_steps") or 0 for row in read_metrics(rundir.metrics_file)), default=0
        )
        in_a_row, reached = (in_a_row + 1, reached) if steps <= reached else (1, steps)
        killed = (
            f"the run's process was killed ({signal.Signals(-code).name}) after {steps} env steps"
        )
        if in_a_row > most:
            often = f"{in_a_row} times in a row without a new one (ray.max_restarts={most})"
            say(f"{killed}, {often}; see {rundir.log_file}")
            return 1
        say(f"{killed}: it goes on from its last checkpoint")
        keeper.stopping.wait(PAUSE_SECONDS)


class _Keeper:
    """One child at a time, and signals handed on to it."""

    def __init__(self, command: Sequence[str]) -> None:
        # In a session of its own: a signal to our whole group would reach it twice, and
        # Ray's handler takes one.
        self._child = Child(command)
        self.stopping = threading.Event()

    def run(self) -> int:
        before = {
            number: signal.signal(number, self._hand_on)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            self._child.start()
            return self._child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hand_on(self, number: int, frame: Any) -> None:
        self.stopping.set()
        self._child.signal(number)
