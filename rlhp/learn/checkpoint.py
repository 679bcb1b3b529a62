"""Checkpoints of one run: `checkpoints/step-000050000/`, whole or not there, the newest
few and the best kept.

    algorithm.pt   the learner's state: all that learning goes on from (of PPO: policy,
                   optimizers, KL coefficient, observation statistics)
    policy.pt      what playing needs of it alone, for `rlhp eval`
    exact.pt       of a serial run: everything else, so that it goes on bit for bit
                   (`rlhp.run.resume`)
    rlhp.json      the algorithm, our counters, the size and digest of each file, and the
                   digest of all that; written last

Nothing in here is unpickled: files hold numbers, texts and arrays. A checkpoint whose
files are not what `rlhp.json` says was cut short or damaged: it is named, and the one
before is used.

The preferences, and in a distributed run the reward model with its optimizer and
version, are not in here: they are saved where they are made (`reward/`, `preferences/`,
Redis), at every change, so they are never older.

The best is the one with the highest true return, kept for whoever looks at the run.
Nothing else reads it: a run goes on from the newest, and `rlhp eval` plays the newest
unless told otherwise.

A nested state is one file, which is read back without running anything that stands in
it. What RLlib, torch and we call a state is dictionaries, lists, numbers, texts and
arrays. Saved as such, a file needs no classes to be read
(`torch.load(weights_only=True)`): one from elsewhere can hold wrong numbers, but runs
no code.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlhp.config.schema import RunConfig
from rlhp.errors import RlhpError, one_line
from rlhp.files import Damaged, sync, write_whole
from rlhp.learn.interface import Learner
from rlhp.storage.remote import Mirror
from rlhp.storage.rundir import RunDir

ARRAY, BYTES = "__array__", "__bytes__"


def save_state(path: Path, state: Any) -> None:
    """Write it; TypeError naming the place of whatever is none of the above."""
    # torch itself would turn an error of the disk into one that names neither it nor
    # the path
    buffer = io.BytesIO()
    torch.save(_plain(state, ()), buffer)
    write_whole(path, buffer.getbuffer())


def load_state(path: Path) -> Any:
    """What `save_state` wrote, bit for bit; ValueError for a file that is damaged or
    holds anything else.
    """
    try:
        return _back(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:  # zip, pickle, torch and the operating system each have their own
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RlhpError(f"{path}: cannot be read as a saved state: {line}") from error


def _plain(value: Any, place: tuple[str, ...]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()  # a view would drag what it is a view of along
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {ARRAY: torch.from_numpy(np.array(value, order="C"))}
    if isinstance(value, bytes):
        return {
            BYTES: torch.frombuffer(bytearray(value), dtype=torch.uint8)
            if value
            else torch.zeros(0)
        }
    if isinstance(value, dict):
        return {
            _key(name, place): _plain(item, (*place, str(name))) for name, item in value.items()
        }
    if isinstance(value, tuple):
        return tuple(_plain(item, (*place, str(k))) for k, item in enumerate(value))
    if isinstance(value, (list, deque)):
        return [_plain(item, (*place, str(k))) for k, item in enumerate(value)]
    raise TypeError(
        f"{'.'.join(place)}: a {type(value).__name__} cannot be saved; only numbers, texts and "
        "arrays can"
    )


def _key(name: Any, place: tuple[str, ...]) -> str | int:
    if isinstance(name, (str, int)):
        return name
    raise TypeError(f"{'.'.join(place)}: a state is named by texts or numbers, got {name!r}")


def _back(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return value[ARRAY].numpy()
        if value.keys() == {BYTES}:
            return value[BYTES].numpy().tobytes()
        return {name: _back(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_back(item) for item in value)
    return value


SCHEMA = 3
FACTS = "rlhp.json"

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in one directory, and their copies elsewhere where there are any."""

    def __init__(
        self, directory: Path, *, keep: int, keep_best: bool = False, mirror: Mirror | None = None
    ) -> None:
        self._directory = directory
        self._keep = keep
        self._keep_best = keep_best
        self._mirror = mirror
        self._refused: set[Path] = set()

    @classmethod
    def of(cls, config: RunConfig, rundir: RunDir) -> Checkpoints:
        """Those of a run, kept as its config wants."""
        store = config.checkpoint.store
        mirror = None if store is None else Mirror(store, rundir.name)
        return cls(
            rundir.checkpoints,
            keep=config.checkpoint.keep,
            keep_best=config.keeps_best,
            mirror=mirror,
        )

    def save(
        self,
        learner: Learner,
        *,
        env_steps: int,
        counters: dict[str, Any],
        true_return: float | None = None,
        exact: dict[str, Any] | None = None,
    ) -> Path:
        """Write a new checkpoint and drop those that are neither among the newest
        `keep` nor the best.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        final = self._directory / f"step-{env_steps:09d}"
        temporary = self._directory / f".step-{env_steps:09d}.tmp"
        for left_over in self._directory.glob(".step-*.tmp"):
            shutil.rmtree(left_over, ignore_errors=True)
        temporary.mkdir()
        try:
            save_state(temporary / "algorithm.pt", learner.get_state())
            save_state(temporary / "policy.pt", learner.policy_state())
            if exact is not None:
                save_state(temporary / "exact.pt", exact)
            files = {path.name: _fingerprint(path) for path in sorted(temporary.iterdir())}
            facts = {
                "schema": SCHEMA,
                "algorithm": learner.algorithm,
                "env_steps": env_steps,
                "true_return": true_return,
                **counters,
                "files": files,
            }
            write_whole(
                temporary / FACTS, json.dumps(facts | {"sha256": _digest(facts)}, indent=2) + "\n"
            )
        except OSError:
            # what a full disk holds of it would be in the way
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        # of the same step, as when a run ends where it has just saved
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        sync(self._directory)
        self._drop_old()
        if self._mirror is not None:
            self._mirror.follow(self.all())
        return final

    def all(self) -> list[Path]:
        """Finished checkpoints, oldest first; whether they are still whole, `newest`
        says.
        """
        return sorted(path for path in self._directory.glob("step-*") if (path / FACTS).is_file())

    def newest(self) -> Path | None:
        """The newest whole one, or None. Each one that is newer and damaged is named
        once in the log.
        """
        for path in reversed(self.all()):
            trouble = damage(path)
            if trouble is None:
                return path
            if path not in self._refused:
                self._refused.add(path)
                log.warning("checkpoint %s is not used, the one before is: %s", path, trouble)
        return None

    def best(self) -> Path | None:
        """The one with the highest true return; None where none is known."""
        known = {
            path: self.counters(path).get("true_return")
            for path in self.all()
            if damage(path) is None
        }
        rated = {path: float(value) for path, value in known.items() if value is not None}
        return max(rated, key=lambda path: rated[path], default=None)

    def fetch(self) -> Path | None:
        """As `newest`, after the copies elsewhere were asked for a newer one."""
        if self._mirror is not None:
            newest = self.newest()
            self._mirror.fetch(self._directory, newer_than="" if newest is None else newest.name)
        return self.newest()

    def close(self) -> None:
        """Wait until the copies elsewhere are up to date, as far as they can be."""
        if self._mirror is not None:
            self._mirror.close()

    @staticmethod
    def counters(path: Path) -> dict[str, Any]:
        """The content of `rlhp.json`; Damaged where that is not what was written,
        RlhpError for another schema.
        """
        try:
            data = json.loads((path / FACTS).read_bytes())
            digest = data.pop("sha256", None)
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise Damaged(f"{FACTS} cannot be read: {one_line(error)}") from None
        if digest is None and data.get("schema") != SCHEMA:
            raise RlhpError(
                f"{path}: checkpoint schema {data.get('schema')}, this rlhp reads {SCHEMA}; "
                "go on with the rlhp that wrote it"
            )
        if digest != _digest(data):
            raise Damaged(f"{FACTS} is not what was written")
        if data["schema"] != SCHEMA:
            raise RlhpError(f"{path}: checkpoint schema {data['schema']}, this rlhp reads {SCHEMA}")
        return dict(data)

    @staticmethod
    def refuse_other(path: Path, algorithm: str) -> None:
        """RlhpError where another algorithm saved this checkpoint; PPO, the first, saved
        those that name none.
        """
        found = Checkpoints.counters(path).get("algorithm", "ppo")
        if found != algorithm:
            raise RlhpError(
                f"{path}: a checkpoint of learner.algorithm={found}, which "
                f"learner.algorithm={algorithm} cannot go on from; set "
                f"learner.algorithm={found}, or begin a new run"
            )

    @staticmethod
    def restore(path: Path, learner: Learner) -> None:
        """Set a fresh learner, of any number of env runners, to what was saved; RlhpError
        where another algorithm saved it.
        """
        Checkpoints.refuse_other(path, learner.algorithm)
        learner.restore(load_state(path / "algorithm.pt"))

    @staticmethod
    def policy(path: Path) -> dict[str, Any]:
        """What `Learner.policy_state` said."""
        state: dict[str, Any] = load_state(path / "policy.pt")
        return state

    @staticmethod
    def exact(path: Path) -> dict[str, Any] | None:
        """What a serial run saved beside the learner; None in a checkpoint of any
        other.
        """
        state: dict[str, Any] | None = (
            load_state(path / "exact.pt") if (path / "exact.pt").exists() else None
        )
        return state

    def _drop_old(self) -> None:
        finished = self.all()
        kept = set(finished[-self._keep :])
        if self._keep_best and (best := self.best()) is not None:
            kept.add(best)
        for old in finished:
            if old not in kept:
                shutil.rmtree(old, ignore_errors=True)


def damage(path: Path) -> str | None:
    """Why this checkpoint cannot be used; None where it is whole. RlhpError for one of
    another schema.
    """
    try:
        facts = Checkpoints.counters(path)
    except Damaged as error:
        return str(error)
    for name, (size, digest) in facts["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if _fingerprint(file)[1] != digest:
            return f"{name} is not what was written"
    return None


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _fingerprint(path: Path) -> list[Any]:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
