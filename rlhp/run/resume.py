"""A serial run goes on bit for bit: what a checkpoint needs besides the learner's state,
and the way back to it.

    save      queue empty -> state of env runner, query actor, reward trainer, generators, loop
              -> exact.pt
    resume    environments brought back -> answers drained -> disk and queue taken back -> roles
              built -> state set

After a kill, disk and queue are ahead of the checkpoint: questions were asked and
answered since. The run that goes on asks them again, at the same moment and under the
same ids. So the parts of the dataset that came after are moved to
`preferences/set_aside/`, and a teacher is not asked what it answered once: `Recalled`
gives what it said.

Not every serial run can do so. Then the log says why, once, and a resume is the
ordinary one: the policy from the checkpoint, all answers kept, episodes begun anew. The
reasons: people answer, or another labeler did; the configuration was changed; queries
were open when the checkpoint was made (`labels.votes`); checks of labelers run by the
clock; environments cannot be brought back.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.learn.checkpoint import Checkpoints
from rlhp.learn.interface import Learner
from rlhp.preferences.dataset import PreferenceDataset, read_events
from rlhp.preferences.events import EventRow
from rlhp.preferences.parts import Parts, list_parts
from rlhp.query.actor import QueryActor
from rlhp.queue.lookup import recollection
from rlhp.queue.queue import QueryQueue
from rlhp.reward.trainer import RewardTrainer, take_in_all
from rlhp.reward.versions import RewardStore, RewardWeights
from rlhp.rollout.episode_replay import CannotRestore
from rlhp.storage.rundir import RunDir
from rlhp.types import Answer, Query, Teacher

log = logging.getLogger(__name__)

TEACHER = "teacher-0"
"""The one labeler of a serial run."""
TABLES = ("segments", "events")
SET_ASIDE = "set_aside"


class Recalled:
    """A teacher that is not asked twice: what it said before a kill stands."""

    def __init__(self, teacher: Teacher, said: Mapping[str, Answer | None]) -> None:
        self.wraps = teacher
        """Whom errors name."""
        self._said = said

    def answer(self, query: Query) -> Answer | None:
        """What was said about this query once, else what the teacher says now."""
        return self._said[query.id] if query.id in self._said else self.wraps.answer(query)


class ExactState:
    """Everything in a serial run that is neither in the learner's state nor on disk."""

    def __init__(
        self,
        config: RunConfig,
        rundir: RunDir,
        learner: Learner,
        *,
        queue: QueryQueue | None = None,
        asking: QueryActor | None = None,
        fitting: RewardTrainer | None = None,
        point: dict[str, Any] | None = None,
    ) -> None:
        """`point`: what `take_back` found, which `restore` sets."""
        self._config, self._rundir, self._learner = config, rundir, learner
        self._queue, self._asking, self._fitting = queue, asking, fitting
        self._point = point
        self._told = False

    def save(self, *, loop: dict[str, Any]) -> dict[str, Any] | None:
        """Plain data; None, and a line in the log the first time, where this moment
        cannot be gone back to.
        """
        try:
            if (why := self._unsettled()) is not None:
                raise CannotRestore(why)
            state: dict[str, Any] = {
                "config": _digest(self._config),
                "loop": loop,
                "runner": self._learner.rollout_state(),
                "generators": _generators(),
            }
        except CannotRestore as error:
            if not self._told:
                self._told = True
                log.warning("a resume will not go on bit for bit from here: %s", error)
            return None
        if self._queue is not None:
            assert self._asking is not None
            assert self._fitting is not None
            weights = self._fitting.newest
            folder = self._rundir.preferences
            state |= {
                "queue": self._queue.counters.all(),
                "asking": self._asking.state(),
                "fitting": self._fitting.state(),
                "reward": None if weights is None else weights.to_bytes(),
                "parts": {table: list_parts(folder / table) for table in TABLES},
            }
        return state

    def restore(self) -> dict[str, Any] | None:
        """Set what `take_back` found, after the learner's own state; returns the loop's part,
        None where nothing was.
        """
        point = self._point
        if point is None:
            return None
        self._point = None
        self._learner.restore_rollout(point["runner"])
        if self._asking is not None:
            self._asking.set_state(point["asking"])
        _set_generators(point["generators"])
        loop: dict[str, Any] = point["loop"]
        return loop

    def _unsettled(self) -> str | None:
        if self._queue is None:
            return None
        stats = self._queue.stats()
        if stats.open or stats.backlog:
            return f"{stats.open} queries were open, {stats.backlog} answers not on disk yet"
        if strangers := stats.labelers.keys() - {TEACHER}:
            return f"{', '.join(sorted(strangers))} labels too"
        return None


def impossible(config: RunConfig) -> str | None:
    """Why no checkpoint of this serial run could be exact; None where they can be."""
    if config.labels.source == "human":
        return "people answer when they like"
    if config.preferences and config.gold_rate > 0:
        return "checks of labelers (quality.gold_rate) run by the clock"
    return None


def take_back(
    config: RunConfig,
    rundir: RunDir,
    checkpoint: Path | None,
    learner: Learner,
    queue: QueryQueue | None,
    *,
    say: Callable[[str], object] = print,
) -> Any:
    """Bring environments, disk and queue back to the checkpoint: its state, or None
    where all was left as it is.

    May be killed and done again: every step is the same the second time.
    """
    point = None if checkpoint is None else Checkpoints.exact(checkpoint)
    if point is None:
        return None
    after: list[EventRow] = []
    if queue is not None:
        if _parts_missing(rundir, point, say):
            return None
        dataset = PreferenceDataset.open(rundir.preferences, compacting=False)
        take_in_all(queue, dataset)
        after = _events_of(rundir.preferences / "events", but=point["parts"]["events"])
        if kept := _why_kept(after, same_config=point["config"] == _digest(config)):
            log.warning(kept)
            return None
    try:
        learner.restore_environments(point["runner"])
    except CannotRestore as error:
        log.warning("episodes begin anew: the environments cannot be brought back, %s", error)
        return None
    if queue is not None:
        _rewind(rundir, point, queue)
    log.info(
        "back at %s: %d later events are set aside until they happen again", checkpoint, len(after)
    )
    return point


def _parts_missing(rundir: RunDir, point: Any, say: Callable[[str], object]) -> bool:
    """Whether parts that the checkpoint knows are there no more, gone or merged; says so."""
    if lost := _gone(rundir.preferences, point["parts"]):
        text = (
            f"gone from {rundir.preferences} since the checkpoint, with what they held: "
            f"{', '.join(lost)}"
        )
        log.warning(text)
        say(
            f"warning: {text}. Put them back from a copy: the run goes on without them, and not "
            "bit for bit"
        )
        return True
    merged = _gone(rundir.preferences, point["parts"], merged=True)
    if merged:
        log.warning(
            "%d parts of the dataset were merged since the checkpoint: all answers are kept",
            len(merged),
        )
    return bool(merged)


def _why_kept(after: Sequence[EventRow], *, same_config: bool) -> str:
    """Why the answers that came after the checkpoint cannot be asked for again; empty
    where they can.
    """
    if strangers := {row.labeler for row in after if row.labeler is not None} - {TEACHER}:
        return f"{', '.join(sorted(strangers))} answered since the checkpoint: all is kept"
    if after and not same_config:
        return f"the configuration changed: the {len(after)} answers since the checkpoint are kept"
    return ""


def _rewind(rundir: RunDir, point: Any, queue: QueryQueue) -> None:
    """Dataset, reward and queue as they were at the checkpoint."""
    _set_parts_aside(rundir.preferences, point["parts"])
    weights = None if point["reward"] is None else RewardWeights.from_bytes(point["reward"])
    RewardStore(rundir.path / "reward").rewind(weights, trainer_state=point["fitting"])
    queue.counters.rewind(point["queue"])
    dataset = PreferenceDataset.open(rundir.preferences, compacting=False)
    queue.recall(recollection(dataset.events()))
    queue.counters.count(point["queue"])


def said_before(rundir: RunDir) -> dict[str, Answer | None]:
    """What the teacher said about queries that were set aside; None for a skip."""
    rows = _events_of(rundir.preferences / SET_ASIDE / "events")
    return {
        row.query_id: row.answer
        for row in rows
        if row.labeler == TEACHER and row.event in ("answer", "skip")
    }


def _digest(config: RunConfig) -> str:
    return loading.sha256(config, without=("runs_dir",))


def _events_of(folder: Path, *, but: Sequence[str] = ()) -> list[EventRow]:
    return [
        row for name in list_parts(folder) if name not in but for row in read_events(folder / name)
    ]


def _gone(folder: Path, parts: Mapping[str, list[str]], *, merged: bool = False) -> list[str]:
    """The parts that are not there, as table/name: those whose rows no other part has,
    or with `merged` those whose rows another part has.
    """
    gone = []
    for table in TABLES:
        whole = Parts(folder / table)
        elsewhere = frozenset().union(
            *(whole.replaced(name) for name in list_parts(folder / table))
        )
        missing = [name for name in parts[table] if not (folder / table / name).exists()]
        gone += [f"{table}/{name}" for name in missing if (name in elsewhere) is merged]
    return gone


def _set_parts_aside(folder: Path, parts: Mapping[str, list[str]]) -> None:
    for table in TABLES:
        aside = folder / SET_ASIDE / table
        for name in list_parts(folder / table):
            if name not in parts[table]:
                aside.mkdir(parents=True, exist_ok=True)
                (folder / table / name).rename(aside / name)


def _generators() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }


def _set_generators(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
