"""What somebody should be told who does not look at the run: nothing moves, or answers
could not be read.

No env step, no answer and no reward version for `watch.quiet_seconds` is said once,
with what the run seems to wait for, and again after twice that time. What is wrong with
what is learned is in `rlhp.monitor.alarms`.

What a run tells those who watch it, from the driver: concerns, Prometheus gauges, and
the list of its actors.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from rlhp.monitor import actors
from rlhp.monitor.alarms import Alarms
from rlhp.monitor.cluster_status import list_actors
from rlhp.monitor.prometheus import Exporter
from rlhp.monitor.rows import RunStatus
from rlhp.storage.rundir import RunDir

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 1.0
PROGRESS = ("env_steps", "labels/answered", "reward/version")


class Concerns:
    """`look` at every row of metrics; a thread of its own notices when there are none."""

    def __init__(
        self,
        say: Callable[[str], object],
        *,
        quiet_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`quiet_seconds` None: silence is no concern, and there is no thread."""
        self._say, self._quiet, self._clock = say, quiet_seconds, clock
        self._row: dict[str, Any] = {}
        self._progress: tuple[Any, ...] = ()
        self._since, self._said = clock(), 1
        self._odd_told = self._refusal_told = False
        self._closed = threading.Event()
        if quiet_seconds is not None:
            threading.Thread(target=self._run, name="concerns", daemon=True).start()

    def look(self, row: Mapping[str, Any]) -> None:
        """A new row of metrics."""
        self._row |= {name: value for name, value in row.items() if value is not None}
        if (odd := int(self._row.get("queue/set_aside", 0))) and not self._odd_told:
            self._odd_told = True
            self._tell(
                f"{odd} entries of the answer log made no row and are set aside: somebody's own "
                "client wrote them, or they are damaged. The answers behind them are stored; "
                "run.log names each"
            )
        if self._row.get("queue/refused", 0) and not self._refusal_told:
            self._refusal_told = True
            self._tell(
                "Redis is at its memory limit, and nobody is asked any more: raise its maxmemory "
                "(the policy goes on learning from the answers there are)"
            )
        progress = tuple(self._row.get(name, 0) for name in PROGRESS)
        if progress != self._progress:
            self._progress, self._since, self._said = progress, self._clock(), 1

    def quiet(self) -> float:
        """Seconds since anything moved."""
        return self._clock() - self._since

    def check(self) -> None:
        """Say so if nothing has moved for too long."""
        if self._quiet is None or self.quiet() < self._quiet * self._said:
            return
        self._said *= 2
        self._tell(
            f"nothing has moved for {self.quiet():.0f} s (no env step, no answer, no reward "
            f"version): {self._why()}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(LOOK_EVERY_SECONDS):
            self.check()

    def _why(self) -> str:
        row = self._row
        waiting = int(row.get("queue/pending", 0) + row.get("queue/leased", 0))
        if not row:
            return "nothing was measured yet, Ray may be short of resources"
        if row.get("phase") == "warm-up" and waiting:
            return f"{waiting} queries wait for answers, and learning waits for them"
        if row.get("phase") == "warm-up":
            return "the warm-up waits for the query actor or for the reward trainer"
        return "an iteration is stuck, perhaps waiting for a reward model or for a node"

    def _tell(self, text: str) -> None:
        log.warning(text)
        self._say(f"warning: {text}")


ACTORS_EVERY_SECONDS = 5.0


class RunMonitor:
    """`look` at every row; as a context manager it also notices when there are none."""

    def __init__(
        self,
        rundir: RunDir,
        *,
        say: Callable[[str], object],
        quiet_seconds: float | None,
        alarms: Alarms | None = None,
        also: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """`also` gets every row too, as a sweep wants."""
        self._rundir, self._also = rundir, also
        self._concerns = Concerns(say, quiet_seconds=quiet_seconds)
        self._alarms = alarms
        self._say = say
        self._exporter = Exporter(rundir.name)
        self._due = 0.0
        self._blind = False

    def look(self, row: dict[str, Any], status: RunStatus) -> None:
        """A new row of metrics, to which the alarms are added, and what the other roles
        said when it was made.
        """
        if self._alarms is not None:
            for text in self._alarms.look(row).values():
                log.warning(text)
                self._say(f"warning: {text}")
            active = self._alarms.active
            row.update({"alarms": len(active), "alarms/names": ", ".join(sorted(active))})
        if self._also is not None:
            self._also(row)
        self._concerns.look(row)
        self._exporter.row(row, quiet_seconds=self._concerns.quiet())
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + ACTORS_EVERY_SECONDS
            self._list(status)

    def __enter__(self) -> Self:
        self._concerns.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._concerns.__exit__(kind, error, trace)

    def _list(self, status: RunStatus) -> None:
        if self._blind:
            return
        try:
            found = list_actors(run=self._rundir.name, said=status.roles)
            self._exporter.actors(found)
            actors.write(self._rundir.actors_file, found)
        except Exception:  # nothing of a run depends on it
            self._blind = True
            log.warning("the actors of this run can no longer be listed", exc_info=True)
