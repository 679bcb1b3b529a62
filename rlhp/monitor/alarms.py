"""Alarms about what is being learned: what is wrong, with a way out, while it goes on.

    chance      fresh accuracy is no better than a coin's: the reward is wrong about what the
                policy does now
    undecided   nearly all answers, the newest too, are ties or `incomparable`: there is nothing
                to learn from
    exploited   predicted return rose while fresh accuracy fell to nearly chance: the policy
                found what the ensemble likes and people do not (Christiano et al. 2017, section
                3.3; Ibarz et al. 2018)
    novel       the policy's observations are far from everything that was asked about
    opposed     the env reward is known (teachers answer) and moves against the predicted one

They are judged once per reward version, and all but `undecided` have to hold for
several versions in a row: a version may be wrong for a moment, and the next answers
mend it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rlhp.config.schema import RunConfig

VERSIONS = 8
"""The predicted return is seen to rise over so many versions, half against half."""
LASTING = 4
"""Versions in a row for which an alarm has to hold."""
FEWEST = 30
"""Nothing is said about the shares of fewer answers."""
CHANCE = 0.65
"""An interval of the accuracy that ends below this is no better than a coin: of 60
answers 53 % or fewer were predicted.
"""
NEARLY_CHANCE = 0.6
UNDECIDED = 0.8
NOVEL = 3.0
OPPOSED = -0.2

Row = Mapping[str, Any]


class Alarms:
    """`look` at every row of metrics; what is wrong by the newest one, by name."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._row: dict[str, Any] = {}
        self._versions: deque[dict[str, Any]] = deque(maxlen=VERSIONS)
        self._lasted: dict[str, int] = {}
        self._best_low = 0.0  # end of the best interval of fresh accuracy so far
        self.active: dict[str, str] = {}
        """Name -> what is wrong, and what to do."""

    def recall(self, rows: Iterable[Row]) -> None:
        """Take in the rows of before, which a resumed run goes on from; what they
        raised was said then.
        """
        for row in rows:
            self.look(row)

    def look(self, row: Row) -> dict[str, str]:
        """The alarms that this row raised, which were not active before."""
        before, version = self._row.get("reward/version") or 0, row.get("reward/version") or 0
        self._row |= {name: value for name, value in row.items() if value is not None}
        judged = {"undecided": self._undecided()}
        if version > before:
            self._versions.append(dict(self._row))
            self._best_low = max(self._best_low, self._row.get("reward/fresh_accuracy_low") or 0.0)
            for name, judge in self._lasting.items():
                text = judge(self)
                self._lasted[name] = self._lasted.get(name, 0) + 1 if text is not None else 0
                judged[name] = text if self._lasted[name] >= LASTING else None
        elif not version:
            judged |= dict.fromkeys(self._lasting)
        raised = {
            name: text
            for name, text in judged.items()
            if text is not None and name not in self.active
        }
        self.active = {
            name: text for name, text in (self.active | judged).items() if text is not None
        }
        return raised

    def _undecided(self) -> str | None:
        row = self._row
        recent, undecided = int(row.get("labels/recent") or 0), 0
        for kind in ("ties", "incomparable"):
            undecided += int(row.get(f"labels/recent_{kind}") or 0)
        if recent < FEWEST or undecided < UNDECIDED * recent:
            return None
        # A policy that has learned a task to the end leaves nothing to decide: then
        # earlier answers were decisive.
        ever = int(row.get("labels/ties") or 0) + int(row.get("labels/incomparable") or 0)
        if ever < UNDECIDED * int(row.get("labels/answered") or 0):
            return None
        return (
            f"{undecided} of the newest {recent} answers are ties or `incomparable`, from which "
            "next to nothing is learned: longer segments (query.segment_length) differ more, and "
            "a teacher needs an env reward that is not the same everywhere"
        )

    def _chance(self) -> str | None:
        row = self._row
        high = row.get("reward/fresh_accuracy_high")
        if high is None or high >= CHANCE or int(row.get("reward/fresh_answers") or 0) < FEWEST:
            return None
        return (
            f"of the newest {row['reward/fresh_answers']} answers the reward had predicted "
            f"{row['reward/fresh_accuracy']:.0%}, no more than a coin: it is wrong about what the "
            f"policy does now. {self._more_answers()}; where answers may be wrong, see rlhp "
            "quality"
        )

    def _exploited(self) -> str | None:
        versions, row = self._versions, self._row
        accuracy, high = row.get("reward/fresh_accuracy"), row.get("reward/fresh_accuracy_high")
        predicted = [
            version["predicted_return_mean"]
            for version in versions
            if "predicted_return_mean" in version
        ]
        if (
            len(predicted) < VERSIONS
            or accuracy is None
            or high is None
            or accuracy >= NEARLY_CHANCE
        ):
            return None
        if high >= self._best_low or not rises(predicted):
            return None
        return (
            f"over the last {VERSIONS} reward versions the predicted return rose from "
            f"{predicted[0]:.3g} to {predicted[-1]:.3g}, and fresh accuracy fell to "
            f"{accuracy:.0%}: the policy may exploit the reward model. Look at its video. "
            f"{self._more_answers()}"
        )

    def _novel(self) -> str | None:
        novelty = self._row.get("reward/novelty")
        if novelty is None or novelty < NOVEL:
            return None
        return (
            f"what the policy sees now is {novelty:.1f} times as far from all that was asked "
            "about as asked segments are from each other: the reward guesses there. "
            f"{self._more_answers()}"
        )

    def _opposed(self) -> str | None:
        correlation = self._row.get("reward/segment_correlation")
        if correlation is None or correlation > OPPOSED:
            return None
        return (
            f"env and predicted reward of the newest segments correlate at {correlation:.2f}: the "
            "policy is rewarded for the opposite of what the teacher prefers. "
            f"{self._more_answers()}"
        )

    def _more_answers(self) -> str:
        labels, row = self._config.labels, self._row
        asked, allowed = int(row.get("labels/asked") or 0), int(row.get("labels/allowed") or 0)
        if asked >= labels.budget:
            return f"All {labels.budget} queries are asked: give more (labels.budget)"
        if int(row.get("labels/answered") or 0) < asked and labels.source == "human":
            return (
                f"{asked - int(row.get('labels/answered') or 0)} queries wait for an answer: "
                "answer them"
            )
        if asked >= allowed and labels.schedule != "adaptive":
            return "labels.schedule=adaptive asks sooner while the reward is wrong"
        return "The next answers are about it: watch whether fresh accuracy rises"

    _lasting: ClassVar[dict[str, Callable[[Alarms], str | None]]] = {
        "chance": _chance,
        "exploited": _exploited,
        "novel": _novel,
        "opposed": _opposed,
    }


def rises(values: Sequence[float]) -> bool:
    """Whether the second half is above the first, beyond two standard errors."""
    numbers = np.array(values, np.float64)
    half = len(numbers) // 2
    first, second = numbers[:half], numbers[half:]
    change = second.mean() - first.mean()
    error = math.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    return bool(change > 2 * error and not math.isclose(change, 0.0, abs_tol=1e-12))
