"""Synthetic teachers: answers computed from env rewards, with chosen faults (B-Pref,
Lee et al. 2021).

Shapes: K steps per segment; w the weight of a step, r its env reward.

The rules, in order, over the two to four segments of a query:

1. skip: the largest plain sum is at most skip * margin, answered `incomparable`
   equal: the plain sums differ by less than equal * margin, marked
2. compare: sums weighted by gamma ** (K - 1 - t), so the last steps count most; exact
   equality of all is a `tie`. With beta > 0 the answer is drawn instead, by the softmax
   of beta * weighted sum (Luce 1959), which for a pair is P(first) = logistic(beta *
   weighted difference)
3. mistake: with this probability the answer is another segment
4. the marked ones are answered `tie`

margin is what an average K steps of the run's last episodes earn above the floor, and
sums are measured from the floor too. The floor is min(0, lowest return of the random
warm-up): on tasks whose returns are negative the published thresholds lie below every
sum, and the skip and equal teachers would never differ from the oracle. The shares
`skip` and `equal` enter here and nowhere else.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from rlhp.config.schema import TeacherConfig
from rlhp.errors import RlhpError
from rlhp.system import imports
from rlhp.types import CHOICES, Answer, Query, Segment, Teacher, TeacherContext, digest

logger = logging.getLogger(__name__)

PRESETS: dict[str, Mapping[str, float]] = {
    "oracle": {},
    "noisy": {"beta": 1.0},
    "mistake": {"mistake": 0.1},
    "skip": {"skip": 0.1},
    "equal": {"equal": 0.1},
    "myopic": {"gamma": 0.9},
}
"""B-Pref's six teachers, as what each changes about the oracle."""

KNOBS = ("beta", "gamma", "mistake", "skip", "equal")


class BPrefTeacher:
    """Judges by env rewards. Without arguments it is the oracle: the larger sum wins.

    What it draws depends on its seed and the query's id alone, so a query that is
    served twice gets the same answer twice, in whatever order and by however many
    processes it is asked.

    Segments of unequal length are compared by their sums over the steps they have, as
    the reward model does: under a mean, an environment that pays one per step survived
    would tie on every query.
    """

    def __init__(
        self,
        *,
        beta: float | None = None,
        gamma: float = 1.0,
        mistake: float = 0.0,
        skip: float = 0.0,
        equal: float = 0.0,
        seed: int = 0,
    ) -> None:
        _check(
            beta is None or 0 < beta < math.inf,
            "beta is a finite number above 0, or None to never draw",
            beta,
        )
        _check(0 < gamma <= 1, "gamma is above 0 and at most 1", gamma)
        _check(0 <= mistake <= 1, "mistake is a probability, between 0 and 1", mistake)
        _check(0 <= skip < math.inf, "skip is a share of the mean return, 0 or more", skip)
        _check(0 <= equal < math.inf, "equal is a share of the mean return, 0 or more", equal)
        self.beta = beta
        self.gamma = gamma
        self.mistake = mistake
        self.skip = skip
        self.equal = equal
        self.seed = seed
        self.without_context = 0
        """Queries on which skip or equal could not be applied, for want of a usable
        context.
        """

    def answer(self, query: Query) -> Answer:
        """The answer to `query`; ValueError where its segments carry no (or not finite)
        env rewards.
        """
        sums = [_plain_sum(segment) for segment in query.candidates]
        skipped, equal = self._thresholds(query, sums)
        if skipped:
            return Answer.INCOMPARABLE
        # Both are always drawn: changing beta must not change which answers are
        # mistakes.
        draw, slip = np.random.default_rng(int(digest("teacher", self.seed, query.id), 16)).random(
            2
        )
        best = self._compare(query, draw)
        if equal or best is None:
            return Answer.TIE
        if slip < self.mistake:
            others = [place for place in range(len(sums)) if place != best]
            best = others[int(slip / self.mistake * len(others))]
        return CHOICES[best]

    def _thresholds(self, query: Query, sums: Sequence[float]) -> tuple[bool, bool]:
        """Whether all are too poor to judge, and whether they are too close to call."""
        if not (self.skip or self.equal):
            return False, False
        context = query.context
        if context is None or not _usable(context):
            self._count_missing(query)
            return False, False
        per_step = 1.0 / context.episode_length
        floor = min(0.0, context.lowest_warmup_return) * per_step
        lengths = [segment.length for segment in query.candidates]
        margin = (context.mean_episode_return * per_step - floor) * max(lengths)
        best = max(total - floor * steps for total, steps in zip(sums, lengths, strict=True))
        spread = max(sums) - min(sums)
        return self.skip > 0 and best <= self.skip * margin, spread < self.equal * margin

    def _compare(self, query: Query, draw: float) -> int | None:
        """The place of the best segment before mistakes, by weighted sums or drawn from
        them; None where all are alike.
        """
        sums = [_weighted_sum(segment, gamma=self.gamma) for segment in query.candidates]
        if max(sums) == min(sums):
            return None
        if self.beta is None:
            best = [place for place, total in enumerate(sums) if total == max(sums)]
            return best[int(draw * len(best))]
        edges = np.cumsum([_luce(sums, place, beta=self.beta) for place in range(len(sums) - 1)])
        return int(np.searchsorted(edges, draw, side="right"))

    def _count_missing(self, query: Query) -> None:
        self.without_context += 1
        if self.without_context == 1:
            logger.warning(
                "query %s says nothing usable about the run's returns (context=%s), so the "
                "teacher's skip=%s and equal=%s cannot be applied to it; further ones are only "
                "counted",
                query.id,
                query.context,
                self.skip,
                self.equal,
            )


def make_teacher(config: TeacherConfig, *, seed: int) -> Teacher:
    """The teacher that `config` names: a preset with the keys that are set, or one of
    the user's own.

    `package.module:Name` is looked for in the working directory too, and called with
    `kwargs`, and with `seed` if it has such a parameter. ValueError, in one line, for
    whatever is wrong with it.
    """
    overrides = {knob: value for knob in KNOBS if (value := getattr(config, knob)) is not None}
    if ":" in config.name:
        if overrides:
            raise RlhpError(
                f"{', '.join(overrides)} belong to the built-in teachers, but the teacher is "
                f"{config.name!r}; pass them in teacher.kwargs instead"
            )
        return _own_teacher(config.name, kwargs=config.kwargs, seed=seed)
    if config.name not in PRESETS:
        close = difflib.get_close_matches(config.name, PRESETS, n=1)
        raise RlhpError(
            f"a teacher is one of {', '.join(PRESETS)}, or package.module:Name of your own; got "
            f"{config.name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
        )
    if config.kwargs:
        raise RlhpError(
            f"teacher.kwargs are for a teacher of your own, got {config.kwargs} with "
            f"{config.name!r}; set {', '.join(KNOBS)} directly"
        )
    return BPrefTeacher(seed=seed, **{**PRESETS[config.name], **overrides})


def _own_teacher(name: str, *, kwargs: Mapping[str, Any], seed: int) -> Teacher:
    build = imports.load(name, key="labels.teacher.name")
    if not callable(build):
        raise RlhpError(
            f"teacher {name!r} is a {type(build).__name__}, not a class or a function that builds "
            "one"
        )
    arguments = dict(kwargs)
    if "seed" not in arguments and _takes_seed(build):
        arguments["seed"] = seed
    try:
        teacher = build(**arguments)
    except Exception as error:
        raise RlhpError(
            f"teacher {name!r} could not be built with {arguments}: {_line(error)}"
        ) from error
    if not callable(getattr(teacher, "answer", None)):
        raise RlhpError(
            f"teacher {name!r} has no method answer(query): it built a {type(teacher).__name__}; "
            "give it one that returns an rlhp.types.Answer, or None to skip the query"
        )
    return cast(Teacher, teacher)


def _takes_seed(build: Any) -> bool:
    try:
        return "seed" in inspect.signature(build).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return False


def _plain_sum(segment: Segment) -> float:
    total = segment.true_return
    if not math.isfinite(total):
        raise RlhpError(
            f"segment {segment.id}: its env rewards sum to {total}; a teacher needs finite ones"
        )
    return total


def _weighted_sum(segment: Segment, *, gamma: float) -> float:
    rewards = np.asarray(segment.env_reward, np.float64)
    weights = gamma ** np.arange(len(rewards) - 1, -1, -1, dtype=np.float64)
    return float(np.sum(weights * rewards))


def _luce(sums: Sequence[float], place: int, *, beta: float) -> float:
    """The probability that the segment at this place is chosen."""
    own = sums[place]
    behind = [beta * (total - own) for at, total in enumerate(sums) if at != place]
    most = max(behind)
    odds = -(most + math.log(sum(math.exp(each - most) for each in behind)))
    return 0.5 * (1 + math.tanh(0.5 * odds))  # logistic, without overflow


def _usable(context: TeacherContext) -> bool:
    numbers = (context.mean_episode_return, context.lowest_warmup_return, context.episode_length)
    return all(math.isfinite(number) for number in numbers) and context.episode_length > 0


def _check(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise RlhpError(f"{rule}; got {value!r}")


def _line(error: Exception) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
