"""When a labeler is suspected of guessing, as pure functions.

A labeler is suspected by the odds of two stories about the same answers: *guessing* (right half of the time) and
*careful* (right as often as `CAREFUL` says). The evidence is the logarithm of those odds, added up answer by answer
(the sequential probability ratio test, Wald 1945). Two properties follow: it may be looked at after every answer, and
somebody at least as good as `CAREFUL` ever reaches odds of 100 to 1 with probability 0.01 at most (Ville 1939).

    evidence >= ln(7.5)   watch    the answers count less: weight = P(careful) at even odds before, 0.1 to 0.5
    evidence >= ln(100)   paused   no further queries, and none of the answers count: weight 0
    side                  a share of left (or right) of 65 % with p < 0.001 is watched, 85 % with p < 1e-5 paused
    clock, ties           half of the answers within half a second, or nine of ten without a preference: watch
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

State = Literal["ok", "watch", "paused"]
CAREFUL = {"gold": 0.9, "repeat": 0.75, "shared": 0.75}
"""How often a careful labeler gives the known answer, repeats an own one, and agrees with at least two others. The
last two are lower because most pairs that are asked about are hard to tell apart."""
WATCH, PAUSE = math.log(7.5), math.log(100)
LIGHTEST, HEAVIEST = 0.1, 0.5
"""Bounds of a watched labeler's weight."""
FAST_SECONDS = 0.5
FEWEST = 20
"""Answers before clock and ties are held against anybody."""


def evidence_of(kind: str, right: int, *, of: int) -> float:
    """ln of the odds for guessing that so many right answers are worth; positive where too many are wrong."""
    careful = CAREFUL[kind]
    return right * math.log(0.5 / careful) + (of - right) * math.log(0.5 / (1 - careful))


def verdict(
    evidence: float, *, side_p: float, left: tuple[int, int], fast: tuple[int, int], undecided: int
) -> tuple[State, str]:
    """The state that these figures mean, and why. `left` and `fast`: how many answers, out of how many."""
    chosen, sides = left
    bias = abs(chosen / sides - 0.5) if sides else 0.0
    one_side = f"{max(chosen, sides - chosen)} of {sides} answers were for the same side"
    guessing = f"checks and shared answers look like guessing, {math.exp(min(evidence, 50)):,.0f} to 1"
    if evidence >= PAUSE:
        return "paused", guessing
    if bias >= 0.35 and side_p < 1e-5:
        return "paused", one_side
    if evidence >= WATCH:
        return "watch", guessing
    if bias >= 0.15 and side_p < 1e-3:
        return "watch", one_side
    if fast[1] >= FEWEST and 2 * fast[0] >= fast[1]:
        return "watch", f"{fast[0]} of {fast[1]} answers took less than {FAST_SECONDS} s"
    total = sides + undecided
    if total >= FEWEST and undecided >= 0.9 * total:
        return "watch", f"{undecided} of {total} answers say tie or cannot tell"
    return "ok", ""


def weight_of(state: State, evidence: float) -> float:
    """How much an answer counts in the fit, 0 to 1."""
    if state == "watch":
        return min(HEAVIEST, max(LIGHTEST, 1 / (1 + math.exp(evidence))))
    return 0.0 if state == "paused" else 1.0


def share(part: int, whole: int) -> float | None:
    """`part` of `whole`, None of nothing."""
    return part / whole if whole else None


def wilson(right: float, asked: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share; (0, 1) where nothing was asked."""
    if asked == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, spread = right / asked, z * z / asked
    middle = (p + spread / 2) / (1 + spread)
    half = math.sqrt(p * (1 - p) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


@lru_cache(maxsize=4096)
def binomial_p(count: int, whole: int) -> float:
    """P of a fair coin falling at least as unevenly as `count` heads of `whole`, two-sided, to ten digits.

    The likeliest count of the tail, and each next one as a fraction of the one before: the exact sum is one of integers
    that have a bit for every coin.
    """
    tail = min(count, whole - count)
    if 2 * tail >= whole - 1:
        return 1.0
    log_ways = math.lgamma(whole + 1) - math.lgamma(tail + 1) - math.lgamma(whole - tail + 1)
    fraction = total = 1.0
    for k in range(tail, 0, -1):
        fraction *= k / (whole - k + 1)
        total += fraction
        if fraction < 1e-17 * total:
            break
    return min(1.0, 2 * math.exp(log_ways - whole * math.log(2)) * total)
