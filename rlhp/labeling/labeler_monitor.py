"""Labelers under watch while a run goes on: figures for admins, weights for the fit, a
pause for who guesses.

    reward trainer: new answers on disk -> LabelerMonitor -> weights by labeler;
                    pauses and reports at the queue

The maths, and what admins and `rlhp status` show, is in `rlhp.preferences.quality`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict

from rlhp.config.schema import RunConfig
from rlhp.preferences.events import EventRow
from rlhp.preferences.quality import INFO, LabelerReport, Reports, weights
from rlhp.queue.queue import QueryQueue, QueueUnavailable

_log = logging.getLogger(__name__)


class LabelerMonitor:
    """Judges all labelers by all events; call it whenever there are new ones.

    monitor = LabelerMonitor(queue, action="pause")
    weights = monitor(dataset.events())  # {"bob": 0.0, "cat": 0.31}: the others count in full
    """

    def __init__(
        self, queue: QueryQueue, *, action: str, trusted: Sequence[str] = (), teachers: bool = False
    ) -> None:
        self._queue = queue
        self._action, self._trusted = action, tuple(trusted)
        self._reports_on = Reports(teachers=teachers)
        self._pardoned: tuple[str, ...] = ()
        self._told: dict[str, str] = {}

    @classmethod
    def of(cls, config: RunConfig, queue: QueryQueue) -> LabelerMonitor | None:
        """As the config wants it; None where nobody is watched."""
        if config.quality_action == "none":
            return None
        teachers = config.labels.source == "oracle"
        return cls(
            queue, action=config.quality_action, trusted=config.quality.trusted, teachers=teachers
        )

    def __call__(self, events: Sequence[EventRow]) -> dict[str, float]:
        """Who counts less than in full, and how much; with Redis away, pauses and
        reports wait for the next call.
        """
        try:
            self._pardoned = tuple(
                name for name, reason in self._queue.pauses.all().items() if not reason
            )
            reports = self._reports(events)
            self._queue.set_info({INFO: json.dumps([asdict(each) for each in reports])})
            if self._action == "pause":
                for each in reports:
                    if each.state == "paused":
                        self._queue.pauses.pause(each.name, reason=each.reason)
        # ValueError: a Redis that came back empty, which the driver reports
        except (QueueUnavailable, ValueError):
            reports = self._reports(events)
        self._tell(reports)
        return weights(reports)

    def _reports(self, events: Sequence[EventRow]) -> list[LabelerReport]:
        return self._reports_on(events, trusted=(*self._trusted, *self._pardoned))

    def _tell(self, reports: Sequence[LabelerReport]) -> None:
        for each in reports:
            if self._told.get(each.name, "ok") != each.state:
                _log.warning(
                    "labeler %s: %s%s",
                    each.name,
                    each.state,
                    f", {each.reason}" if each.reason else "",
                )
            self._told[each.name] = each.state
