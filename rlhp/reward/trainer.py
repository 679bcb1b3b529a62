"""The reward trainer: turns answers into preferences on disk, preferences into reward
versions.

    answer stream -> preferences/ (durable) -> acknowledge -> fit -> normalize -> publish v+1

It runs at its own pace beside the rollouts (Christiano et al. 2017, section 2.2):
fitting is paid by env steps (`reward.label_uses_per_step`) and never waits for a
person; the learner waits for it where it is too far behind (`rlhp.run.throttle`). Where
the answers are explained a version is the one before at the newest scale. Killed, it
comes back with its last version's optimizer and bookkeeping, rereads the dataset, and
rereads every answer it had not acknowledged.

The way of an answer from the queue to the disk: stored, then acknowledged, so that a
crash delivers it again.

events -> rows -> preferences/events -> ack
            \\-> set aside, where an entry makes no row; the answers behind it are stored
"""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Protocol

import torch

from rlhp.config.schema import RunConfig
from rlhp.envs.spaces import Spaces
from rlhp.preferences.answers import answered, doubts, is_reused, settle
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.preferences.events import EventRow, storable
from rlhp.preferences.fresh import NEWEST, by_age, fresh_accuracy, predicted
from rlhp.reward.fit import Fitter
from rlhp.reward.loss import FitReport
from rlhp.reward.versions import RewardStore, RewardWeights
from rlhp.system.roles import RewardTrainerStatus
from rlhp.types import Answer, Array

CONSUMER = "reward-trainer"
"""Its name in the queues that there are, which is why it has kept its hyphen."""


class AnswerSource(Protocol):
    """The answer stream: read through a consumer group, acknowledged when durable."""

    def events(
        self, *, consumer: str, count: int = 256, block_ms: int | None = None
    ) -> list[Any]: ...

    def ack(self, stream_ids: Any) -> Any: ...

    def set_aside(self, reasons: Any) -> Any:
        """Acknowledge entries that make no row, by stream id, and keep them with the
        reason.
        """

    def check_owner(self) -> None:
        """TakenOver where the run is another process's by now."""


def take_in(answers: AnswerSource, dataset: PreferenceDataset) -> int:
    """Store the next answers; how many there were."""
    events = answers.events(consumer=CONSUMER)
    if not events:
        return 0
    rows, odd = storable(events)
    dataset.add_events(rows)
    if odd:
        answers.set_aside(odd)
    answers.ack([event.stream_id for event in events if event.stream_id not in odd])
    return len(events)


def take_in_all(answers: AnswerSource, dataset: PreferenceDataset) -> None:
    """Store all that the queue holds."""
    while take_in(answers, dataset):
        pass


log = logging.getLogger(__name__)

UPDATES_PER_TURN, PICTURE_UPDATES_PER_TURN = 50, 4
"""Gradient steps before the stream is looked at again, and before others hear of them:
a second or so.
"""
ROWS_PER_STEP, PICTURE_USES_PER_STEP = 25, 0.1
"""What `reward.label_uses_per_step: null` means: steps of segments that each member is
fed per env step, and with pictures the uses of our first runs with them.
"""
CARRIED_VERSIONS = 4
"""Fits that answers did not need so far are kept for a surprise, as many as this number
of versions is worth.
"""


Recent = Callable[[int], tuple[Array, Array] | None]
"""At most n recent transitions: flat obs [B, O] float32, encoded actions [B, A]; None
when nobody knows any.
"""

Judge = Callable[[Sequence[EventRow]], Mapping[str, float]]
"""Of all events so far: the labelers whose answers count less than in full, and how
much.
"""


class RewardTrainer:
    """`step(env_steps)` does whatever is due and says whether anything was."""

    def __init__(
        self,
        config: RunConfig,
        spaces: Spaces,
        *,
        dataset: PreferenceDataset,
        answers: AnswerSource,
        store: RewardStore,
        recent: Recent,
        publish: Callable[[RewardWeights], object],
        reused: int = 0,
        drain_every_seconds: float = 0.0,
        judge: Judge | None = None,
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._answers = answers
        self._store = store
        self._recent = recent
        self._publish = publish
        self._fitter = Fitter(config.reward, spaces=spaces, seed=config.seed)
        self._updates_per_turn = (
            UPDATES_PER_TURN if spaces.obs.picture is None else PICTURE_UPDATES_PER_TURN
        )
        self._reused = reused
        self._drain_every_seconds = drain_every_seconds
        self._judge = judge
        self._drained_at = -math.inf
        self._version = 0
        self._uses_per_step = uses_per_step(config, spaces)
        self._uses = 0.0
        self._env_steps = 0
        self._first_steps = 0
        self._published_steps = 0
        self._updates_since = 0
        self._report: FitReport | None = None
        self._novelty: float | None = None
        self._newest: RewardWeights | None = None
        self._answers_known: dict[tuple[str, str | None], Answer | None] = {}
        self._fresh: dict[str, float | int | None] = {}
        self._answered = 0
        self._fit_seconds = 0.0
        self._restore()

    def _restore(self) -> None:
        """Continue after the last published version: versions never repeat."""
        self._dataset.refresh()
        saved = self._store.trainer_state()
        newest = self._newest = self._store.newest()
        if newest is not None:
            self._version = self._store.highest()
        if newest is not None and saved is None:
            log.warning(
                "no trainer state is intact: the reward is fitted anew after version %d",
                self._version,
            )
        if newest is not None and saved is not None:
            state = torch.load(io.BytesIO(saved), weights_only=True)
            self._fitter.load_state_dict(state["fitter"])
            self._version = max(int(state["version"]), self._version)
            self._uses, self._first_steps = state["uses"], state["first_steps"]
            self._published_steps, self._updates_since = (
                state["published_steps"],
                state.get("updates_since", 0),
            )
            self._report = FitReport(**state["report"]) if state.get("report") else None
            self._novelty = state.get("novelty")
            log.info("reward trainer goes on from version %d", self._version)
        self._take_in()
        if newest is not None:
            self._publish(newest)

    def step(self, env_steps: int) -> bool:
        """Drain answers; pretrain, fit and publish as far as `env_steps` of the run
        allow.
        """
        self._env_steps = env_steps
        drained = self._drain_when_due()
        if self._version == 0:
            if drained:
                return True  # so that everybody hears of the answers before a long fit begins
            # Without transitions there is no scale: a query actor that was just
            # restarted knows none yet.
            if not self._ready_for_first() or not self._observe():
                return False
            started = time.perf_counter()
            reward = self._config.reward
            if self._fitter.trainable:
                self._fitter.pretrain(reward.pretrain_epochs, early_stop=reward.early_stop_epochs)
            elif self._answered:  # no more are asked before version 1, so waiting would be for ever
                log.warning(
                    "none of the first %d answers teaches: they are incomparable, or outside "
                    "every member's bag. Reward version 1 is untrained; a larger "
                    "labels.initial_share asks more at first",
                    self._answered,
                )
            self._fit_seconds += time.perf_counter() - started
            self._first_steps = env_steps
            self._release(env_steps)
            return True
        trained = self._fit(env_steps)
        due = env_steps - self._published_steps >= self._config.reward.publish_every_steps
        if due and (self._updates_since or self._fitter.explained):
            self._observe()
            self._release(env_steps)
            return True
        return drained or trained

    def _ready_for_first(self) -> bool:
        """All initial answers are in (Christiano et al. 2017, appendix A: pretrain
        before the policy learns).

        Without a budget there are none: version 1 is the untrained ensemble, which
        shows what a run reaches unasked. So it is where none of them teaches, since
        further ones are asked only while the policy learns.
        """
        labels = self._config.labels
        if labels.budget == 0 and not self._reused:
            return True
        return self._answered >= labels.initial_queries or self._reused > 0

    def _owed(self, env_steps: int) -> int:
        """Gradient steps that env steps have paid for and that answers need."""
        reward = self._config.reward
        earned = self._uses_per_step * max(0, env_steps - self._first_steps)
        most_kept = self._uses_per_step * CARRIED_VERSIONS * reward.publish_every_steps
        self._uses = max(self._uses, earned - most_kept)
        if not self._fitter.trainable or self._fitter.explained:
            return 0
        return int((earned - self._uses) // reward.batch_size)

    def _fit(self, env_steps: int) -> bool:
        batch = self._config.reward.batch_size
        updates = min(self._updates_per_turn, self._owed(env_steps))
        if updates <= 0:
            return False
        started = time.perf_counter()
        self._fitter.train(updates * batch)
        self._fit_seconds += time.perf_counter() - started
        self._uses += updates * batch
        self._updates_since += updates
        return True

    def _fitted_steps(self) -> float | None:
        """Env steps of the run whose fits are done: all that are known of where none is
        owed; None before version 1.
        """
        if self._version == 0:
            return None
        if not self._owed(self._env_steps):
            return self._env_steps
        return self._first_steps + self._uses / self._uses_per_step

    def _observe(self) -> bool:
        recent = self._recent(self._config.reward.reservoir)
        if recent is not None:
            self._fitter.observe(*recent)
        return recent is not None

    def _release(self, env_steps: int) -> None:
        """Freeze, save, publish: the snapshot is durable before anyone is rewarded by
        it.
        """
        with suppress(ConnectionError):  # with Redis away nobody takes a run over
            self._answers.check_owner()
        self._version += 1
        self._published_steps = env_steps
        self._updates_since = 0
        weights = self._newest = self._fitter.publish(self._version, before=self._newest)
        self._report = self._fitter.report()
        self._novelty = self._fitter.novelty()
        self._store.save(weights, trainer_state=self.state())
        self._publish(weights)

    def state(self) -> bytes:
        """All but preferences and published versions: what `trainer.state` holds, and
        `_restore` reads.
        """
        buffer = io.BytesIO()
        state = {
            "fitter": self._fitter.state_dict(),
            "version": self._version,
            "uses": self._uses,
            "first_steps": self._first_steps,
            "published_steps": self._published_steps,
            "updates_since": self._updates_since,
            "report": None if self._report is None else asdict(self._report),
            "novelty": self._novelty,
        }
        torch.save(state, buffer)
        return buffer.getvalue()

    @property
    def newest(self) -> RewardWeights | None:
        """The newest published version; None before the first."""
        return self._newest

    def _drain_when_due(self) -> bool:
        if time.monotonic() - self._drained_at < self._drain_every_seconds:
            return False
        self._drained_at = time.monotonic()
        return self.drain()

    def drain(self) -> bool:
        """Answers to disk, then acknowledged, then into the fitter: delivered at least
        once, counted once.
        """
        if not take_in(self._answers, self._dataset):
            return False
        self._take_in()
        return True

    def _take_in(self) -> None:
        """Hand the fitter what changed in the live set; a retraction makes it start its
        data anew.
        """
        self._dataset.refresh()
        rows = self._dataset.live()
        live = settle(rows)
        self._answered = answered(live)
        weights = self._judge(self._dataset.events()) if self._judge is not None and rows else {}
        if weights:
            live = settle(rows, weights=weights)
        self._fresh = fresh_numbers(live, self._dataset)
        now = {_key(row): row.answer for row in live}
        if any(now.get(key) != answer for key, answer in self._answers_known.items()):
            self._fitter.forget_data()
            self._answers_known = {}
        fresh = self._dataset.preferences_of(
            [row for row in live if _key(row) not in self._answers_known]
        )
        usable = [p for p in fresh if p.answer is not Answer.INCOMPARABLE]
        self._fitter.add(usable, doubts=doubts(rows, weights=weights))
        self._answers_known = now

    def status(self) -> RewardTrainerStatus:
        """How far it is; `rlhp.storage.metrics.METRICS` says what the metrics mean."""
        fresh = self._fresh
        return RewardTrainerStatus(
            version=self._version,
            answered=self._answered,
            published_steps=self._published_steps,
            fitted_steps=self._fitted_steps(),
            fit_seconds=self._fit_seconds,
            trainable=self._fitter.size,
            fresh_accuracy=fresh.get("reward/fresh_accuracy"),
            fresh_answers=int(fresh.get("reward/fresh_answers") or 0),
            metrics=self._metrics(),
        )

    def _metrics(self) -> dict[str, float | None]:
        report = self._report
        counts = self._dataset.counts()
        return {
            "reward/version": self._version,
            "labels/answered": self._answered,
            "labels/ties": counts["ties"],
            "labels/incomparable": counts["incomparable"],
            "reward/updates": self._fitter.updates,
            "reward/sees_action": int(self._fitter.sees_action) if self._version else None,
            "reward/train_loss": report.train_loss if report else None,
            "reward/val_loss": report.val_loss if report else None,
            "reward/l2": report.l2 if report else None,
            "reward/train_accuracy": report.train_accuracy if report else None,
            "reward/heldout_accuracy": report.heldout_accuracy if report else None,
            "reward/calibration_error": report.calibration_error if report else None,
            "reward/novelty": self._novelty,
            **self._fresh,
        }


def fresh_numbers(
    live: Sequence[EventRow], dataset: PreferenceDataset
) -> dict[str, float | int | None]:
    """The newest settled answers of this run, and what had been predicted of them, by
    metric name.
    """
    live = [row for row in live if not is_reused(row)]
    recent = fresh_accuracy(live[-NEWEST:])
    numbers: dict[str, float | int | None] = {
        "labels/recent": recent.decisive + recent.ties + recent.incomparable,
        "labels/recent_ties": recent.ties,
        "labels/recent_incomparable": recent.incomparable,
    }
    rows = predicted(live)[-NEWEST:]
    if not rows:
        return numbers
    cut_at = dataset.cut_at(segment for row in rows for segment in row.candidate_ids)
    newest, (young, old) = fresh_accuracy(rows), by_age(rows, cut_at)
    low, high = newest.interval
    return numbers | {
        "reward/fresh_accuracy": newest.accuracy,
        "reward/fresh_accuracy_low": low,
        "reward/fresh_accuracy_high": high,
        "reward/fresh_answers": newest.decisive,
        "reward/fresh_accuracy_young": young.accuracy,
        "reward/fresh_accuracy_old": old.accuracy,
    }


def uses_per_step(config: RunConfig, spaces: Spaces) -> float:
    """`reward.label_uses_per_step`, resolved: most preferences fed to each member per
    env step.
    """
    if config.reward.label_uses_per_step is not None:
        return config.reward.label_uses_per_step
    if spaces.obs.picture is not None:
        return PICTURE_USES_PER_STEP
    return ROWS_PER_STEP / (2 * config.query.segment_length)


def _key(row: EventRow) -> tuple[str, str | None]:
    return row.query_id, row.labeler
