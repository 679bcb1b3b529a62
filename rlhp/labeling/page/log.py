"""Everything that was answered so far: the dataset on disk, and behind it what Redis still holds."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rlhp.query.lookup import Lookup
from rlhp.reward.events import EventRow, storable
from rlhp.reward.live import Key
from rlhp.reward.quality import LabelerReport, Reports
from rlhp.rundir import RunDir

if TYPE_CHECKING:
    from rlhp.reward.dataset import PreferenceDataset


class AnswerLog:
    """The events of one run; without a run directory only those that Redis still holds."""

    def __init__(self, lookup: Lookup, rundir: RunDir | None) -> None:
        self._lookup, self._rundir = lookup, rundir
        self._dataset: PreferenceDataset | None = None
        self._rows: dict[Key, EventRow] = {}
        self._reports = Reports()
        self._lock = threading.Lock()

    def rows(self) -> list[EventRow]:
        """Every event, each once, oldest first."""
        fresh, _ = storable(self._lookup.unread())  # first: what leaves Redis is on disk
        with self._lock:
            for row in (*self._stored(), *fresh):
                self._rows.setdefault(row.key, row)
            return list(self._rows.values())

    def reports(self, *, trusted: Iterable[str]) -> list[LabelerReport]:
        """On everybody who did any of that."""
        rows = self.rows()
        with self._lock:
            return self._reports(rows, trusted=trusted)

    def _stored(self) -> list[EventRow]:
        if self._rundir is None or not (self._rundir.preferences / "dataset.json").exists():
            return []
        from rlhp.reward.dataset import PreferenceDataset  # a second of imports that labelers need not wait for

        if self._dataset is None:
            self._dataset = PreferenceDataset.open(self._rundir.preferences)
        self._dataset.refresh()
        return self._dataset.events()
