"""The labelling page that a run of `labels.source=human` starts itself: `rlhp serve RUN`, as anybody could.

This process holds the listening socket and hands it down, so the address stays while the server is started again:
whoever connects meanwhile waits instead of being refused. A page that cannot work is said once and tried again; it
never ends the run, which other labelers may serve. It does not outlive the run: it holds one end of a pipe.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rlhp.config import PageConfig
from rlhp.disk import write_whole
from rlhp.labeling.page.address import address_of, bound
from rlhp.labeling.page.link import link_token
from rlhp.query.queue import QueryQueue
from rlhp.rundir import RunDir

log = logging.getLogger(__name__)

SOON_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 30.0
GRACE_SECONDS = 8.0
MOST_LOG_BYTES = 1_000_000
LOOK_SECONDS = 5.0
"""Between two looks at the size of page.log."""


@contextmanager
def page_server(config: PageConfig, rundir: RunDir, queue: QueryQueue, *, say: Callable[[str], None]) -> Iterator[None]:
    """Serve the page for the length of a block, and say the link that opens it, to whoever started the run alone."""
    server = PageServer(config, rundir)
    try:
        say(f"label at {server.address}/#token={link_token(queue.url, run=queue.run, rundir=rundir)}")
        yield
    finally:
        server.stop()


class PageServer:
    """One server process on a socket of this one, watched by a thread that starts it again."""

    def __init__(self, config: PageConfig, rundir: RunDir) -> None:
        """ValueError for a host that is not this machine's; a port that is taken becomes a free one."""
        self._rundir = rundir
        self._log = rundir.path / "page.log"
        self._socket = bound(config.host, config.port, or_free=True)
        self.address = address_of(self._socket)
        write_whole(rundir.page_url_file, self.address + "\n")
        self._stopping = threading.Event()
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, name="labelling page", daemon=True)
        self._watcher.start()
        self._trimmer = threading.Thread(target=self._trim, name="page log", daemon=True)
        self._trimmer.start()

    @property
    def pid(self) -> int:
        """Of the present server process, for tests that kill it."""
        return self._process.pid

    def stop(self) -> None:
        """Let it finish the replies under way; kill it if it does not."""
        self._stopping.set()
        process = self._process
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        self._watcher.join()
        self._trimmer.join()
        self._socket.close()

    def _start(self) -> subprocess.Popen[bytes]:
        descriptor = self._socket.fileno()
        command = [sys.executable, "-m", "rlhp", "serve", str(self._rundir.path), "--socket", str(descriptor)]
        with self._log.open("ab") as output:
            # A session of its own: Ctrl-C at the terminal is the driver's to handle.
            return subprocess.Popen(
                [*command, "--until-eof"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[descriptor],
                start_new_session=True,
            )

    def _watch(self) -> None:
        pause = 0.0
        while True:
            started = time.monotonic()
            code = self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            if self._stopping.is_set():
                return
            pause = 0.0 if time.monotonic() - started > SOON_SECONDS else min(LONGEST_PAUSE_SECONDS, 1 + 2 * pause)
            log.warning("the labelling page died (exit code %d) and is started again: %s", code, self._last_words())
            if self._stopping.wait(pause):
                return
            self._process = self._start()
            if self._stopping.is_set():  # stop() terminated the one before
                self._process.terminate()

    def _trim(self) -> None:
        """Keep page.log small, and what was in it before: the server appends, so it goes on at the new end."""
        while not self._stopping.wait(LOOK_SECONDS):
            if self._log.stat().st_size > MOST_LOG_BYTES:
                shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
                os.truncate(self._log, 0)

    def _last_words(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"
