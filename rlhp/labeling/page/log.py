"""Everything that was answered so far: the dataset on disk, and behind it what Redis still holds."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rlhp.query.lookup import Lookup
from rlhp.reward.events import EventRow, storable
from rlhp.rundir import RunDir

if TYPE_CHECKING:
    from rlhp.reward.dataset import PreferenceDataset


class AnswerLog:
    """The events of one run; without a run directory only those that Redis still holds."""

    def __init__(self, lookup: Lookup, rundir: RunDir | None) -> None:
        self._lookup, self._rundir = lookup, rundir
        self._dataset: PreferenceDataset | None = None
        self._lock = threading.Lock()

    def rows(self) -> list[EventRow]:
        """Every event, each once, oldest first."""
        fresh, _ = storable(self._lookup.unread())  # first: what leaves Redis is on disk
        rows = {row.key: row for row in self._stored()}
        for row in fresh:
            rows.setdefault(row.key, row)
        return list(rows.values())

    def _stored(self) -> list[EventRow]:
        if self._rundir is None or not (self._rundir.preferences / "dataset.json").exists():
            return []
        from rlhp.reward.dataset import PreferenceDataset  # a second of imports that labelers need not wait for

        with self._lock:
            if self._dataset is None:
                self._dataset = PreferenceDataset.open(self._rundir.preferences)
            self._dataset.refresh()
            return self._dataset.events()
