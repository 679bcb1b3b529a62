"""What a run tells those who watch it, from the driver: concerns, Prometheus gauges, and the list of its actors."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from rlhp import actors
from rlhp.rundir import RunDir
from rlhp.running.alarms import Alarms
from rlhp.running.census import census
from rlhp.running.concerns import Concerns
from rlhp.running.exporter import Exporter

log = logging.getLogger(__name__)

ACTORS_EVERY_SECONDS = 5.0


class Watching:
    """`look` at every row; as a context manager it also notices when there are none."""

    def __init__(
        self,
        rundir: RunDir,
        *,
        say: Callable[[str], object],
        quiet_seconds: float | None,
        alarms: Alarms | None = None,
        notes: Callable[[], Mapping[str, str]] = dict,
        also: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """`notes` tells by role what an actor is at; `also` gets every row too, as a sweep wants."""
        self._rundir, self._notes, self._also = rundir, notes, also
        self._concerns = Concerns(say, quiet_seconds=quiet_seconds)
        self._alarms = alarms
        self._say = say
        self._exporter = Exporter(rundir.name)
        self._due = 0.0
        self._blind = False

    def look(self, row: dict[str, Any]) -> None:
        """A new row of metrics, to which the alarms are added."""
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
            self._count()

    def __enter__(self) -> Self:
        self._concerns.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._concerns.__exit__(kind, error, trace)

    def _count(self) -> None:
        if self._blind:
            return
        try:
            found = census(run=self._rundir.name, notes=self._notes())
            self._exporter.actors(found)
            actors.write(self._rundir.actors_file, found)
        except Exception:  # nothing of a run depends on it
            self._blind = True
            log.warning("the actors of this run can no longer be listed", exc_info=True)
