"""Published reward versions on disk: `reward/version-000012.reward`, whole or not there.

A replica that starts anew reads the newest one; so does a restarted reward trainer, whose optimiser and bookkeeping
lie beside it in `trainer.state`, and in `trainer.before.state` as they were one version earlier. Each file ends with
its digest. What does not match it is named in the log, and the intact one before is used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rlhp.disk import Damaged, naming, sealed, unsealed, write_whole
from rlhp.reward.model import RewardWeights
from rlhp.types import DecodeError

Content = TypeVar("Content")

STATE, STATE_BEFORE = "trainer.state", "trainer.before.state"

log = logging.getLogger(__name__)


class RewardStore:
    """One directory of versions; the newest `keep` are kept."""

    def __init__(self, directory: Path, *, keep: int = 3) -> None:
        self._directory = directory
        self._keep = keep
        self._named: set[Path] = set()

    def save(self, weights: RewardWeights, *, trainer_state: bytes) -> None:
        """Durable when it returns. The trainer's state goes first, so it is never older than a version."""
        with naming(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            for torn in self._directory.glob(".*.tmp"):
                torn.unlink(missing_ok=True)
            if (state := self._directory / STATE).exists():
                os.rename(state, self._directory / STATE_BEFORE)
        write_whole(state, sealed(trainer_state))
        write_whole(self._directory / f"version-{weights.version:06d}.reward", sealed(weights.to_bytes()))
        for old in self._versions()[: -self._keep]:
            old.unlink(missing_ok=True)

    def rewind(self, weights: RewardWeights | None, *, trainer_state: bytes) -> None:
        """Make this the newest version again (None: the time before the first), and forget those after it."""
        newest = 0 if weights is None else weights.version
        for path in self._versions():
            if _number(path) > newest:
                path.unlink()
        for name in (STATE, STATE_BEFORE):
            (self._directory / name).unlink(missing_ok=True)
        if weights is not None:
            self.save(weights, trainer_state=trainer_state)

    def newest_number(self) -> int:
        """Of the newest version that was saved, intact or not; 0 before the first."""
        return max(map(_number, self._versions()), default=0)

    def newest(self) -> RewardWeights | None:
        """The newest intact version, or None before the first. Damaged where there are versions, but none is intact."""
        versions = self._versions()
        found = self._first_intact(versions[::-1], RewardWeights.from_bytes, what="reward version")
        if found is None and versions:
            raise Damaged(
                f"{self._directory}: no reward version in it is what was written, from {versions[0].name} to "
                f"{versions[-1].name}; put them back from a copy, or move the directory away and the reward is fitted "
                "anew to the answers on disk"
            )
        return found

    def highest(self) -> int:
        """The highest number a version ever had here, damaged ones included; 0 before the first."""
        return max(map(_number, self._versions()), default=0)

    def trainer_state(self) -> bytes | None:
        """What the reward trainer saved with its last version, or with the one before where that is damaged."""
        states = [self._directory / STATE, self._directory / STATE_BEFORE]
        return self._first_intact([path for path in states if path.exists()], bytes, what="trainer state")

    def _first_intact(self, paths: Sequence[Path], decode: Callable[[bytes], Content], *, what: str) -> Content | None:
        """The content of the first of these that is intact; the others are named in the log, once."""
        for path in paths:
            try:
                return decode(unsealed(path.read_bytes()))
            except (Damaged, DecodeError) as error:
                if path not in self._named:
                    self._named.add(path)
                    log.warning("%s %s is not used, the intact one before is, if there is one: %s", what, path, error)
            except FileNotFoundError:
                continue  # a writer has just dropped it, having written a newer one
        return None

    def _versions(self) -> list[Path]:
        return sorted(path for path in self._directory.glob("version-*.reward") if path.stem[8:].isdecimal())


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
