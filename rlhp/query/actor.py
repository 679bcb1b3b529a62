"""The query actor: keeps the newest segments, picks pairs worth asking about, pushes
them to the queue.

    offer (env runners) -> pool of newest segments -> candidate pairs -> ranked
    -> segments to disk -> queue

It may drop segments, it never drops an answer, and it never asks one pair twice. It
asks when the label schedule allows it and fewer than `query.max_open` queries are open;
nothing waits for it.

What the query actor needs of others: a store for segments, and the asking side of a
queue.

How well the reward model ranks what the policy does now, by the env rewards of the
candidate pool.

Correlating whole episodes mixes the versions that predicted them, and a new version shifts
them all; here one version prices every segment. For whoever reads the metrics: nothing
is chosen by it. Without env rewards in segments (people answer) there is nothing to
compare with.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rlhp.config.schema import RunConfig
from rlhp.envs.spaces import Spaces
from rlhp.errors import RlhpError
from rlhp.preferences.answers import answered, live, settle
from rlhp.preferences.events import EventRow
from rlhp.query.checks import Checks
from rlhp.query.schedule import AdaptiveSchedule, LabelBudget
from rlhp.query.selection import choice_probabilities, make_selection, random_pairs
from rlhp.queue.records import body_of
from rlhp.reward.client import RewardSource
from rlhp.reward.service import NoRewardYet
from rlhp.system.roles import QueryActorStatus
from rlhp.types import (
    Array,
    Query,
    Segment,
    TeacherContext,
    comparison_id,
    decode,
    encode,
    query_id,
)


class SegmentStore(Protocol):
    """Where segments are made durable before anyone is asked about them."""

    def add_segments(self, segments: Sequence[Segment]) -> Any: ...

    def asked(self) -> set[str]: ...

    def refresh(self) -> None: ...

    def events(self) -> list[EventRow]: ...

    def segments(self, ids: Iterable[str]) -> list[Segment]: ...


class Queue(Protocol):
    """The side of the query queue that asks."""

    def put(
        self,
        *,
        query: str,
        candidates: Sequence[str],
        body: Any,
        payloads: Any,
        want: int,
        only: str | None,
        hidden: Any,
        ready: bool,
    ) -> str: ...

    def stats(self) -> Any: ...


SEGMENTS = 256
"""Of the pool, evenly over it: oldest to newest."""
EVERY = 20
"""Looks of the query actor between two measurements of one version: the pool changes
too.
"""

Returns = Callable[[list[tuple[Segment, Segment]]], tuple[Array | None, int | None]]
"""Predicted returns [M, Q, C] of queries and the version they come from."""


class Agreement:
    """`correlation` as of the last `look` that measured; None before there is one."""

    def __init__(self) -> None:
        self.correlation: float | None = None
        self._looks = 0

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {"looks": self._looks, "correlation": self.correlation}

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self._looks, self.correlation = state["looks"], state["correlation"]

    def look(self, pool: Sequence[Segment], *, returns: Returns) -> None:
        """Measure now and then. It draws nothing, so no choice of queries depends on
        it.
        """
        self._looks += 1
        if self._looks % EVERY != 1:
            return
        usable = [segment for segment in pool if segment.env_reward is not None]
        chosen = usable[:: max(1, len(usable) // SEGMENTS)][:SEGMENTS]
        chosen = chosen[: len(chosen) // 2 * 2]
        if len(chosen) < 4:
            return
        predicted, _ = returns(list(zip(chosen[::2], chosen[1::2], strict=True)))
        if predicted is None:
            return
        true = np.array([segment.true_return for segment in chosen])
        # [M, C, 2] -> first, second, first, second: as they were chosen
        sums = predicted.reshape(len(predicted), -1)
        spread = sums.std(1, keepdims=True)
        # members have scales of their own
        mean = (sums / np.where(spread > 0, spread, 1.0)).mean(0)
        # a reward that is almost the same everywhere
        with np.errstate(invalid="ignore", divide="ignore"):
            found = float(np.corrcoef(true, mean)[0, 1])
        if np.isfinite(found):
            self.correlation = found


log = logging.getLogger(__name__)

MOST_AT_ONCE = 32
"""Queries asked in one turn: small enough that newer segments get their chance in the
next one.
"""

ROWS_AT_ONCE = 2048
"""Pictures scored in one call: stacks of Atari are 28 kB each. Between two calls a new
version may come.
"""


class QueryActor:
    """`offer` takes segments, `progress` tells how far the run is, `step` asks what is
    due.
    """

    def __init__(
        self,
        config: RunConfig,
        spaces: Spaces,
        *,
        queue: Queue,
        store: SegmentStore,
        reward: RewardSource,
    ) -> None:
        self._config = config
        self._spaces = spaces
        self._queue = queue
        self._store = store
        self._reward = reward
        self._selection = make_selection(config.query.selection)
        self._rng = np.random.default_rng([config.seed, 7])
        self._pool: deque[Segment] = deque(maxlen=config.query.pool)
        self._newest = config.newest_segments
        self._asked = store.asked()
        self._lock = threading.Lock()
        self._schedule = AdaptiveSchedule()
        self._fresh_accuracy: float | None = None
        self._env_steps = 0
        self._warmup_steps = 0
        self._learning = False
        self._episodes: deque[tuple[float, int]] = deque(maxlen=10)
        self._lowest = 0.0
        self._offered = 0
        self._unpaired = 0
        self._answered_before = answered(settle(live(store.events())))
        self._forgotten: int | None = None
        self._duplicates = self._refused = 0
        self._agreement = Agreement()
        self._checks = Checks(
            config, store=store, put=self._put, returns=lambda pairs: self._returns(pairs)[0]
        )

    @property
    def budget(self) -> LabelBudget:
        """The schedule over the steps that follow the warm-up."""
        return LabelBudget(
            self._config.labels, self._config.learner.total_env_steps - self._warmup_steps
        )

    @property
    def warmup_target(self) -> int:
        """Segments to collect before the first query: two per initial query, and more
        where those made no pair, as far as the pool holds them.
        """
        return max(2, min(self._config.query.pool, 2 * self.budget.initial + self._unpaired))

    def offer(self, segments: list[Segment]) -> int:
        """Add to the pool; the oldest fall out. Returns the number taken."""
        with self._lock:
            self._pool.extend(segments)
            self._offered += len(segments)
        return len(segments)

    def progress(
        self,
        *,
        env_steps: int,
        warmup_steps: int,
        learning: bool,
        lowest_return: float = 0.0,
        episodes: Sequence[tuple[float, int]] = (),
        fresh_accuracy: float | None = None,
    ) -> None:
        """How far the run is: everything that an actor which was just restarted cannot
        know by itself.

        Env steps of the whole run and of its warm-up, whether the policy learns yet,
        the lowest true return of the warm-up, (true return, length) of newly ended
        episodes, and fresh accuracy, which the adaptive schedule goes by.
        """
        with self._lock:
            self._fresh_accuracy = fresh_accuracy
            self._env_steps, self._warmup_steps, self._learning = env_steps, warmup_steps, learning
            self._lowest = lowest_return
            self._episodes.extend(episodes)

    def step(self) -> int:
        """Ask as many queries as are due; returns how many were admitted, checks of
        labelers not counted.
        """
        self._checks.step()
        with self._lock:
            pool = list(self._pool)
            policy_steps = self._env_steps - self._warmup_steps if self._learning else 0
            ready = self._learning or len(pool) >= self.warmup_target
        if self._learning and self._config.shares_env_reward:
            self._agreement.look(pool, returns=lambda pairs: self._returns(pairs))
        stats = self._queue.stats()
        if self._forgotten is None:  # an emptied Redis forgot what was asked: answers on disk count
            self._forgotten = max(0, self._answered_before - int(stats.asked))
        asked = int(stats.asked) + self._forgotten
        due = self._allowed(policy_steps, asked=asked) - asked
        room = (
            self._config.query.max_open
            - int(stats.pending)
            - int(stats.leased)
            - int(stats.reserved)
        )
        count = min(due, room, MOST_AT_ONCE)
        if count <= 0 or not ready or len(pool) < 2:
            return 0
        share = self._config.query.random_share
        drawn = math.floor((asked + count) * share) - math.floor(asked * share)
        chosen = self._choose(pool, count, drawn=drawn)
        if not chosen:
            # No two segments of the pool are of one length, or all of those were asked.
            # While the policy learns the pool changes by itself; before that it has to grow.
            if not self._learning:
                self._unpaired += 2 * count
            return 0
        self._store.add_segments(
            list({s.id: s for query, _ in chosen for s in query.candidates}.values())
        )
        return sum(self._ask(query, hidden) for query, hidden in chosen)

    def _put(self, query: Query, only: str | None, hidden: Mapping[str, Any]) -> str:
        payloads = {segment.id: encode(segment) for segment in query.candidates}
        status = self._queue.put(
            query=query.id,
            candidates=list(payloads),
            body=body_of(query),
            payloads=payloads,
            want=self._config.labels.votes if only is None else 1,
            only=only,
            hidden=hidden,
            ready=not self._config.draws_clips,
        )
        self._refused += status == "no memory"
        return status

    def _ask(self, query: Query, hidden: Mapping[str, Any]) -> int:
        # not full or spent: asked for good
        if (status := self._put(query, None, hidden)) in ("ok", "same", "dup"):
            self._asked.add(comparison_id([each.id for each in query.candidates]))
        self._duplicates += status == "dup"
        return int(status == "ok")

    def _allowed(self, policy_steps: int, *, asked: int | None = None) -> int:
        """Queries that the schedule allows by now; of the adaptive one, without
        `asked`, as of the last time.
        """
        budget = self.budget
        if self._config.labels.schedule != "adaptive" or not self._learning:
            return budget.allowed(policy_steps)
        accuracy = self._fresh_accuracy
        if asked is None:
            return self._schedule.now(budget)
        return self._schedule.allowed(budget, policy_steps, asked=asked, accuracy=accuracy)

    def _choose(
        self, pool: list[Segment], count: int, *, drawn: int
    ) -> list[tuple[Query, dict[str, list[float]]]]:
        """The best pairs and `drawn` others, and what the members predict about each
        before anybody answers.
        """
        wanted = count * self._config.query.candidate_factor
        pairs = random_pairs(pool, wanted, newest=self._newest, asked=self._asked, rng=self._rng)
        if not pairs:
            return []
        returns, version = self._returns(pairs)
        scores = np.asarray(self._selection.rank(pairs, returns, self._rng), np.float64)
        if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
            raise RlhpError(
                f"query.selection={self._config.query.selection!r} must give one finite score per "
                f"candidate pair, got shape {scores.shape} for {len(pairs)} pairs"
            )
        ranked = np.argsort(-scores, kind="stable")
        # candidates come in random order
        best, rest = ranked[: count - drawn], np.sort(ranked[count - drawn :])
        best = np.concatenate([best, rest[:drawn]])
        random = {int(k) for k in rest[:drawn]}
        context = self._context()
        queries = [
            Query(
                id=query_id(
                    run=pairs[k][0].run, purpose="train", candidates=[s.id for s in pairs[k]]
                ),
                candidates=pairs[k],
                strategy="random" if int(k) in random else self._config.query.selection,
                score=float(scores[k]),
                reward_version=version,
                env_steps=self._env_steps,
                context=context,
            )
            for k in best
        ]
        if returns is None:
            return [(query, {}) for query in queries]
        p_QC = choice_probabilities(returns).mean(0)
        return [
            (query, {"predicted": p_QC[k].tolist()}) for query, k in zip(queries, best, strict=True)
        ]

    def _returns(self, queries: Sequence[tuple[Segment, ...]]) -> tuple[Array | None, int | None]:
        """Raw member sums [M, Q, C] over the candidates, equally many of each query, and
        the version they come from; None before the first version.
        """
        if not self._learning:
            return None, None
        unique = list({segment.id: segment for query in queries for segment in query}.values())
        at_once = (
            max(1, ROWS_AT_ONCE // unique[0].length) if self._spaces.obs.picture else len(unique)
        )
        sums: dict[str, Array] = {}
        version: int | None = None
        try:
            for start in range(0, len(unique), at_once):
                part = unique[start : start + at_once]
                rewards_MB, version = self._reward.score(*self._flat(part))
                edges = np.cumsum([segment.length for segment in part])[:-1]
                scored = (rewards.sum(1) for rewards in np.split(rewards_MB, edges, axis=1))
                sums |= {segment.id: total for segment, total in zip(part, scored, strict=True)}
        except NoRewardYet:
            return None, None
        found = [np.stack([sums[each.id] for each in query], axis=1) for query in queries]
        return np.stack(found, axis=1), version

    def _flat(self, segments: list[Segment]) -> tuple[Array, Array]:
        obs = [
            self._spaces.obs.flatten({path: leaf[:-1] for path, leaf in s.obs.items()})
            for s in segments
        ]
        actions = [self._spaces.action.encode(s.actions) for s in segments]
        return np.concatenate(obs), np.concatenate(actions)

    def recent(self, count: int) -> tuple[Array, Array] | None:
        """At most `count` transitions of the newest segments: obs [B, *O], encoded
        actions [B, A].
        """
        with self._lock:
            newest: list[Segment] = []
            steps = 0
            for segment in reversed(self._pool):
                newest.append(segment)
                steps += segment.length
                if steps >= count:
                    break
        if not newest:
            return None
        obs, actions = self._flat(newest)
        return obs[:count], actions[:count]

    def _context(self) -> TeacherContext | None:
        if not self._config.shares_env_reward:
            return None
        with self._lock:
            episodes = list(self._episodes)
        if not episodes:
            return None
        return TeacherContext(
            mean_episode_return=float(np.mean([true for true, _ in episodes])),
            lowest_warmup_return=self._lowest,
            episode_length=float(np.mean([length for _, length in episodes])),
        )

    def state(self) -> dict[str, Any]:
        """All that is not on disk or at the queue, as plain data."""
        with self._lock:
            return {
                "rng": self._rng.bit_generator.state,
                "pool": [encode(segment) for segment in self._pool],
                "episodes": list(self._episodes),
                "offered": self._offered,
                "unpaired": self._unpaired,
                "duplicates": self._duplicates,
                "agreement": self._agreement.state(),
                "schedule": self._schedule.state(),
            }

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        with self._lock:
            self._rng.bit_generator.state = state["rng"]
            self._pool.clear()
            self._pool.extend(decode(segment) for segment in state["pool"])
            self._episodes.clear()
            self._episodes.extend((float(true), int(length)) for true, length in state["episodes"])
            self._offered, self._duplicates = state["offered"], state["duplicates"]
            self._unpaired = state.get("unpaired", 0)  # runs of before have none
            self._agreement.set_state(state["agreement"])
            if "schedule" in state:  # which runs of before have not, and need none
                self._schedule.set_state(state["schedule"])

    def status(self) -> QueryActorStatus:
        """How far it is."""
        steps = self._env_steps - self._warmup_steps if self._learning else 0
        pool, allowed, budget = len(self._pool), self._allowed(steps), self._config.labels.budget
        return QueryActorStatus(
            env_steps=self._env_steps,
            pool=pool,
            offered=self._offered,
            warmup_target=self.warmup_target,
            allowed=allowed,
            budget=budget,
            duplicates=self._duplicates,
            refused=self._refused,
            metrics={
                "segments/pool": pool,
                "segments/offered": self._offered,
                "segments/warmup_target": self.warmup_target,
                "labels/allowed": allowed,
                "labels/budget": budget,
                "queue/refused": self._refused,
                "reward/segment_correlation": self._agreement.correlation,
            },
        )
