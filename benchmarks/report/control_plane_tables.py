"""The section on the control plane: what was measured under load, and what that says of
the largest cluster.

CPU seconds per piece of work are fitted over all points, so that the estimate is of
parts with a core of their own and not of the machine that all of them shared.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.report import rows, tables
from rlhp.query.actor import MOST_AT_ONCE
from rlhp.workers.roles import ASK_EVERY_SECONDS

Row = dict[str, Any]

LEAST_CORES = 0.002
"""Below this a process's clock, which ticks a hundred times a second, says nothing."""
ANSWER_SECONDS = 3.5
"""Of a person at the page."""
BOUGHT_AT = 64
"""Runners at which a second replica is compared with one."""
PARTS = {
    "replica": "reward model",
    "query_actor": "query actor",
    "redis": "Redis",
    "gcs": "Ray's control store",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one part costs: cores = idle + sum(each[factor] * factor per second)."""

    idle: float
    each: dict[str, float]
    """Factor -> CPU seconds."""

    def room_for(self, factor: str, **given: float) -> float:
        """So many `factor` per second fill one core, beside the others at the rates
        `given`.
        """
        taken = self.idle + sum(self.each[name] * rate for name, rate in given.items())
        return max(0.0, 1 - taken) / self.each[factor] if self.each[factor] else float("inf")


def cost(found: list[Row], part: str, *factors: str) -> Cost | None:
    """The least relative error over these rows, nothing below zero; None where they do
    not tell the factors apart.
    """
    some = [row for row in found if row["replicas"] == 1]
    cores = np.array([max(LEAST_CORES, row[f"{part}_cores"]) for row in some])
    rates = np.array([[1.0, *(row[f"{factor}_per_second"] for factor in factors)] for row in some])
    if len(some) < len(factors) + 1 or np.linalg.matrix_rank(rates) < len(factors) + 1:
        return None
    kept = list(range(len(factors) + 1))
    while True:
        solved = np.linalg.lstsq(rates[:, kept] / cores[:, None], np.ones(len(some)), rcond=None)[0]
        if (solved >= 0).all():
            break
        kept.pop(int(solved.argmin()))  # a negative cost is noise: without it
    values = dict(zip(kept, map(float, solved), strict=True))
    return Cost(
        idle=values.get(0, 0.0),
        each={name: values.get(k, 0.0) for k, name in enumerate(factors, 1)},
    )


def points(found: list[Row]) -> list[Row]:
    """The median of each figure over a point's repeats, by replicas, mode and runners."""
    by: dict[tuple[int, str, int], list[Row]] = defaultdict(list)
    for row in found:
        by[row["replicas"], row["mode"], row["runners"]].append(row)
    return [
        {
            name: statistics.median(row[name] for row in some)
            if isinstance(some[0][name], int | float)
            else value
            for name, value in some[0].items()
        }
        for _, some in sorted(by.items())
    ]


def section() -> str:
    """Markdown for the page."""
    found = rows.read("control_plane")
    if not found:
        return ""
    seen = points(found)
    think = max(row["think_seconds"] for row in seen)
    lines = [
        "## The control plane under load",
        "",
        "    python -m benchmarks.control_plane",
        "",
        "Fake env runners have fragments of random numbers in HalfCheetah's shapes (1,024 "
        "transitions) labeled and offer their segments. Reward models, query actor, embedded "
        f"Redis and four teacher processes are real. `paced`: {think:g} s, a real runner's time "
        "for its steps, lie before each fragment; `unthrottled`: none; `questions`: paced, and "
        "teachers answer at once. CPU seconds are those of the part itself per 1,000 labeled "
        "transitions; all parts and the fake runners share the machine, and the last column says "
        "how much of it they took. Query actor and teachers give way to the others, as in a run: "
        "where the machine is full they starve first, and segments are dropped.",
        "",
        "| runners | reward models | mode | labeled transitions/s | label latency, median (99 %) "
        "| segments offered/s | dropped | queries asked, answered /s | MB: reward model, query "
        "actor, Redis | CPU s per 1,000: reward models, query actor, Redis | machine |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *map(_line, seen),
        "",
    ]
    return "\n".join([*lines, *_bought(seen), *estimate(seen), tables.made(found)])


def _line(row: Row) -> str:
    made = row["transitions_per_second"]
    cut = row["offered_per_second"] + row["dropped_per_second"]
    each = ", ".join(
        f"{1000 * row[f'{part}_cores'] / made:.2g}" for part in ("replica", "query_actor", "redis")
    )
    memory = ", ".join(f"{row[f'{part}_mb']:.0f}" for part in ("replica", "query_actor", "redis"))
    return (
        f"| {row['runners']:g} | {row['replicas']:g} | {row['mode']} | {made:,.0f} | "
        f"{row['label_ms_p50']:.1f} ms ({row['label_ms_p99']:.0f}) | "
        f"{row['offered_per_second']:,.0f} | {row['dropped_per_second'] / cut if cut else 0:.1%} "
        f"| {row['asked_per_second']:.1f}, {row['answered_per_second']:.1f} | {memory} | {each} | "
        f"{row['everything_cores'] / row['machine_cores']:.0%} of {row['machine_cores']:g} cores |"
    )


def _bought(seen: list[Row]) -> list[str]:
    """What the second replica buys."""
    lines = []
    for mode in ("paced", "unthrottled"):
        one, two = (_point(seen, runners=BOUGHT_AT, replicas=count, mode=mode) for count in (1, 2))
        if one is None or two is None:
            continue
        lines.append(
            f"- A second reward model at {BOUGHT_AT} runners, {mode}: "
            f"{two['transitions_per_second'] / one['transitions_per_second']:.2f} times the "
            f"labeled transitions, {two['label_ms_p50'] / one['label_ms_p50']:.2f} times the "
            f"median latency. One had {one['replica_cores']:.2f} cores, two had "
            f"{two['replica_cores']:.2f}."
        )
    return [*lines, ""] if lines else []


def _point(seen: list[Row], *, runners: int, replicas: int, mode: str) -> Row | None:
    wanted = {"runners": runners, "replicas": replicas, "mode": mode}
    return next(
        (row for row in seen if all(row[name] == value for name, value in wanted.items())), None
    )


def estimate(seen: list[Row]) -> list[str]:
    """The largest cluster that one query actor and one Redis serve, in words."""
    paced = [row for row in seen if row["mode"] == "paced" and row["replicas"] == 1]
    asking = cost(seen, "query_actor", "offered", "asked")
    serving = cost(seen, "redis", "answered")
    pricing = cost(seen, "replica", "transitions", "asked")
    naming = cost(seen, "gcs", "fragments")
    if not paced or asking is None or serving is None or pricing is None or naming is None:
        return []
    one = min(paced, key=lambda row: float(row["runners"]))  # before anything is dropped, or waits
    segments, steps, fragments = (
        one[f"{name}_per_second"] / one["runners"]
        for name in ("offered", "transitions", "fragments")
    )
    cap = MOST_AT_ONCE / ASK_EVERY_SECONDS
    asked = min(cap, statistics.median(row["asked_per_second"] for row in paced))
    runners = asking.room_for("offered", asked=asked) / segments
    full = asking.room_for("offered", asked=cap) / segments
    queries = serving.room_for("answered")
    priced = pricing.room_for("transitions", asked=asked) / steps
    named = naming.room_for("fragments") / fragments
    return [
        "**The largest cluster that one query actor and one Redis serve**, computed from the CPU "
        "seconds of each part over all points with one reward model, as if it had a core of its "
        f"own and its costs stayed what they were. A runner has {steps:,.0f} transitions labeled "
        f"and offers {segments:,.0f} segments a second.",
        "",
        "| part | costs | a core of it serves |",
        "|---|---|---|",
        f"| query actor | {1e6 * asking.each['offered']:.0f} us per segment, "
        f"{1e3 * asking.each['asked']:.2f} ms per query, {asking.idle:.1%} of a core besides | "
        f"{_count(runners)} env runners at {asked:.0f} queries/s, {_count(full)} at {cap:.0f}/s, "
        "the most that it asks |",
        f"| Redis | {1e3 * serving.each['answered']:.2f} ms per query (asked, leased, answered, "
        f"read), {serving.idle:.1%} of a core besides | {_count(queries)} queries/s: "
        f"{_count(queries * ANSWER_SECONDS)} people who take {ANSWER_SECONDS:g} s each; env "
        "runners cost it nothing |",
        f"| reward model | {1e6 * pricing.each['transitions']:.2f} us per transition, "
        f"{1e3 * pricing.each['asked']:.2f} ms per query (candidates scored) | {_count(priced)} "
        "env runners; there is one per node |",
        f"| {PARTS['gcs']} | {1e6 * naming.each['fragments']:.0f} us per fragment, "
        f"{naming.idle:.1%} of a core besides | {_count(named)} env runners |",
        "",
        _verdict(runners=runners, queries=queries, cap=cap, named=named),
        "",
    ]


def _verdict(*, runners: float, queries: float, cap: float, named: float) -> str:
    asks = min(cap, queries)
    who = "the query actor, which asks no more" if cap <= queries else "Redis"
    clause = (
        f"; Ray's own store of names and actors is full before that, at {_count(named)}"
        if named < runners
        else ""
    )
    return (
        f"So one query actor does for {_count(runners)} env runners{clause}. Beyond that it loses "
        "segments, which are plentiful, and no runner waits for it. Questions are limited by "
        f"{who}, at {asks:.0f} a second: the answers of {_count(asks * ANSWER_SECONDS)} people. "
        "Reward models grow with the nodes."
    )


def _count(value: float) -> str:
    """Two digits of it: an estimate has no more."""
    return f"{float(f'{value:.2g}'):,.0f}" if np.isfinite(value) else "any number of"
