"""What a run tells those who watch it: warnings, Prometheus gauges, and the list of its
actors in `actors.json`.

A warning goes to the terminal and into `run.log`. No env step, no answer and no reward
version for `watch.quiet_seconds` is said once, with what explains it most, and again
after twice that time; damage is said when it is first seen, and so is each alarm. The
words are those of `rlhp.monitor.diagnosis`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from rlhp.monitor import actors
from rlhp.monitor.actors import ActorFacts
from rlhp.monitor.alarms import Alarms
from rlhp.monitor.cluster_status import list_actors
from rlhp.monitor.diagnosis import Facts, alarm, diagnose
from rlhp.monitor.prometheus import Exporter
from rlhp.monitor.rows import RunStatus
from rlhp.storage.rundir import RunDir

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 1.0
AT_ONCE = ("refused", "set aside")
"""Findings that are told when they are first seen."""


class Concerns:
    """`look` at the facts of every row; a thread of its own notices when there are none."""

    def __init__(
        self,
        say: Callable[[str], object],
        *,
        quiet_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`quiet_seconds` None: silence is no concern, and there is no thread."""
        self._say, self._quiet, self._clock = say, quiet_seconds, clock
        self._facts = Facts()
        self._progress: tuple[int, ...] = ()
        self._since = self._looked = clock()
        self._times = 1
        self._told: set[str] = set()
        self._closed = threading.Event()
        if quiet_seconds is not None:
            threading.Thread(target=self._run, name="concerns", daemon=True).start()

    def look(self, facts: Facts) -> None:
        """How the run is, at a new row of metrics."""
        self._facts, self._looked = facts, self._clock()
        for finding in diagnose(facts):
            if finding.kind in AT_ONCE and finding.kind not in self._told:
                self._told.add(finding.kind)
                self.tell(finding.line())
        progress = (facts.env_steps, facts.answered, facts.reward_version)
        if progress != self._progress:
            self._progress, self._since, self._times = progress, self._clock(), 1

    def quiet(self) -> float:
        """Seconds since anything moved."""
        return self._clock() - self._since

    def check(self) -> None:
        """Say so if nothing has moved for too long."""
        if self._quiet is None or self.quiet() < self._quiet * self._times:
            return
        self._times *= 2
        silent = self._clock() - self._looked
        facts = replace(self._facts, silent_seconds=silent if silent >= self._quiet else None)
        why = [finding.line() for finding in diagnose(facts) if finding.for_operators]
        text = f"nothing has moved for {self.quiet():.0f} s (no env step, no answer, no reward "
        self.tell(": ".join([f"{text}version)", *why[:1]]))

    def tell(self, text: str) -> None:
        """A warning, to the log and to whoever watches."""
        log.warning(text)
        self._say(f"warning: {text}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(LOOK_EVERY_SECONDS):
            self.check()


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
        self._rundir, self._config, self._also = rundir, rundir.config(), also
        self._concerns = Concerns(say, quiet_seconds=quiet_seconds)
        self._alarms = alarms
        self._exporter = Exporter(rundir.name)
        self._due = 0.0
        self._blind = False
        self._actors: Sequence[ActorFacts] = ()

    def look(self, row: dict[str, Any], status: RunStatus) -> None:
        """A new row of metrics, to which the alarms are added, and what the other roles
        said when it was made.
        """
        if self._alarms is not None:
            for name, text in self._alarms.look(row).items():
                self._concerns.tell(alarm(name, text).line())
            active = self._alarms.active
            row.update({"alarms": len(active), "alarms/names": ", ".join(sorted(active))})
        if self._also is not None:
            self._also(row)
        self._concerns.look(self.facts(status, env_steps=int(row.get("env_steps") or 0)))
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

    def facts(self, status: RunStatus, *, env_steps: int) -> Facts:
        """What the run itself knows, for a diagnosis."""
        labels = self._config.labels
        query_actor, trainer, queue = status.query_actor, status.reward_trainer, status.queue
        facts = Facts(
            name=self._rundir.name,
            path=str(self._rundir.path),
            source=labels.source,
            budget=labels.budget,
            initial=labels.initial_queries,
            page=self._rundir.page_url(),  # without its token, since this goes into run.log
            env_steps=env_steps,
            queue=queue,
            queue_problem=status.queue_problem,
            set_aside=0 if queue is None else queue.set_aside,
            actors=self._actors,
            alarms={} if self._alarms is None else self._alarms.active,
        )
        if query_actor is not None:
            facts = replace(
                facts,
                pool=query_actor.pool,
                pool_target=query_actor.warmup_target,
                allowed=query_actor.allowed,
                refused=query_actor.refused,
            )
        if trainer is None:
            return facts
        return replace(
            facts,
            reward_version=trainer.version,
            learning=trainer.version > 0,
            answered=trainer.answered,
        )

    def _list(self, status: RunStatus) -> None:
        if self._blind:
            return
        try:
            self._actors = list_actors(run=self._rundir.name, statuses=status.roles)
            self._exporter.actors(self._actors)
            actors.write(self._rundir.actors_file, self._actors)
        except Exception:  # nothing of a run depends on it
            self._blind = True
            log.warning("the actors of this run can no longer be listed", exc_info=True)
