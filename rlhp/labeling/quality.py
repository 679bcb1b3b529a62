"""Labelers under watch while a run goes on: figures for admins, weights for the fit, a pause for who guesses.

    reward trainer: new answers on disk -> Watch -> weights by labeler; pauses and reports at the queue
    admin, status:  published(queue.info()) -> the newest reports; report(dataset.events()) on a run directory

The maths is in `rlhp.reward.quality` and `rlhp.reward.suspicion`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from rlhp.config import RunConfig
from rlhp.query.pauses import Pauses
from rlhp.query.queue import QueryQueue, QueueUnavailable
from rlhp.reward.events import EventRow
from rlhp.reward.quality import LabelerReport, Reports, report, weights
from rlhp.reward.suspicion import share

__all__ = ["INFO", "LabelerReport", "Watch", "published", "report", "table", "weights"]

INFO = "labelers"
"""Under which of the run's facts the reports are."""
HEADINGS = ("labeler", "answers", "known right", "same again", "agreement", "left", "seconds", "weight", "state")

_log = logging.getLogger(__name__)


class Watch:
    """Judges all labelers by all events; call it whenever there are new ones.

    watch = Watch(queue, action="pause")
    weights = watch(dataset.events())  # {"bob": 0.0, "cat": 0.31}: the others count in full
    """

    def __init__(self, queue: QueryQueue, *, action: str, trusted: Sequence[str] = (), teachers: bool = False) -> None:
        self._queue, self._pauses = queue, Pauses(queue.url, run=queue.run)
        self._action, self._trusted = action, tuple(trusted)
        self._reports_on = Reports(teachers=teachers)
        self._pardoned: tuple[str, ...] = ()
        self._told: dict[str, str] = {}

    @classmethod
    def of(cls, config: RunConfig, queue: QueryQueue) -> Watch | None:
        """As the config wants it; None where nobody is watched."""
        if config.quality_action == "none":
            return None
        teachers = config.labels.source == "oracle"
        return cls(queue, action=config.quality_action, trusted=config.quality.trusted, teachers=teachers)

    def __call__(self, events: Sequence[EventRow]) -> dict[str, float]:
        """Who counts less than in full, and how much; with Redis away, pauses and reports wait for the next call."""
        try:
            self._pardoned = tuple(name for name, reason in self._pauses.all().items() if not reason)
            reports = self._reports(events)
            self._queue.set_info({INFO: json.dumps([asdict(each) for each in reports])})
            if self._action == "pause":
                for each in reports:
                    if each.state == "paused":
                        self._pauses.pause(each.name, reason=each.reason)
        except (QueueUnavailable, ValueError):  # ValueError: a Redis that came back empty, which the driver reports
            reports = self._reports(events)
        self._tell(reports)
        return weights(reports)

    def _reports(self, events: Sequence[EventRow]) -> list[LabelerReport]:
        return self._reports_on(events, trusted=(*self._trusted, *self._pardoned))

    def _tell(self, reports: Sequence[LabelerReport]) -> None:
        for each in reports:
            if self._told.get(each.name, "ok") != each.state:
                _log.warning("labeler %s: %s%s", each.name, each.state, f", {each.reason}" if each.reason else "")
            self._told[each.name] = each.state


def published(info: Mapping[str, str]) -> list[LabelerReport]:
    """The newest reports among the facts of a run; none where nobody is watched, or where they are of another rlhp."""
    known = {field.name for field in fields(LabelerReport)}
    found = json.loads(info.get(INFO, "[]"))
    return [LabelerReport(**facts) for facts in found if set(facts) == known]


def table(reports: Sequence[LabelerReport]) -> list[str]:
    """Lines of a table for people, headings first; empty without labelers."""
    if not reports:
        return []
    rows = [HEADINGS, *(_row(each) for each in reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return lines + [f"{each.name}: {each.reason}." for each in reports if each.reason]


def _row(each: LabelerReport) -> tuple[str, ...]:
    gold = "-"
    if each.gold_asked:
        gold = f"{each.gold_right}/{each.gold_asked} ({each.gold_low:.0%} to {each.gold_high:.0%})"
    return (
        each.name,
        str(each.answers),
        gold,
        f"{each.repeats_same}/{each.repeats_asked}" if each.repeats_asked else "-",
        _percent(each.agreement),
        _percent(share(each.left, each.decisive)),
        "-" if each.median_seconds is None else f"{each.median_seconds:.1f}",
        f"{each.weight:.2f}",
        each.state,
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
