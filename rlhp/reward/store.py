"""Published reward versions on disk: `reward/version-000012.reward`, whole or not there.

A replica that starts anew reads the newest one; so does a restarted reward trainer, whose optimiser
and bookkeeping lie beside it in `trainer.state`.
"""

from __future__ import annotations

import os
from pathlib import Path

from rlhp.reward.model import RewardWeights


class RewardStore:
    """One directory of versions; the newest `keep` are kept."""

    def __init__(self, directory: Path, *, keep: int = 3) -> None:
        self._directory = directory
        self._keep = keep

    def save(self, weights: RewardWeights, *, trainer_state: bytes) -> None:
        """Durable when it returns. The trainer's state goes first, so it is never older than a version."""
        self._directory.mkdir(parents=True, exist_ok=True)
        write_whole(self._directory / "trainer.state", trainer_state)
        write_whole(self._directory / f"version-{weights.version:06d}.reward", weights.to_bytes())
        for old in self._versions()[: -self._keep]:
            old.unlink(missing_ok=True)

    def rewind(self, weights: RewardWeights | None, *, trainer_state: bytes) -> None:
        """Make this the newest version again (None: the time before the first), and forget those after it."""
        newest = 0 if weights is None else weights.version
        for path in self._versions():
            if int(path.stem.rpartition("-")[2]) > newest:
                path.unlink()
        if weights is None:
            (self._directory / "trainer.state").unlink(missing_ok=True)
        else:
            self.save(weights, trainer_state=trainer_state)

    def newest(self) -> RewardWeights | None:
        """The newest version, or None before the first."""
        versions = self._versions()
        return RewardWeights.from_bytes(versions[-1].read_bytes()) if versions else None

    def trainer_state(self) -> bytes | None:
        """What the reward trainer saved with its last version."""
        path = self._directory / "trainer.state"
        return path.read_bytes() if path.exists() else None

    def _versions(self) -> list[Path]:
        return sorted(self._directory.glob("version-*.reward"))


def write_whole(path: Path, data: bytes) -> None:
    """Write, sync and rename: a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
