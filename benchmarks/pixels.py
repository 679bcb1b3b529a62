"""The table of the suite `pixels`, drawn from its rows: python -m benchmarks.learning
--suite pixels
"""

from __future__ import annotations

from benchmarks.report import intervals, tables
from benchmarks.report.intervals import told
from benchmarks.rig.suites import EPISODES, SUITES
from rlhp.envs.moving_dot import best_return

BEST = {"moving_dot": best_return()}
TARGET = 0.9
"""Share of the best return that every seed is to reach."""
MINUTES = 10
"""Longest that a seed may take."""


def section() -> str:
    """Markdown for the page."""
    found, note = tables.shown("pixels")
    lines = [
        f"## {SUITES['pixels'].title}",
        "",
        "    python -m benchmarks.learning --suite pixels",
        "",
        "Policy and reward see pictures alone, serial program. True return of the final policy, "
        f"mean of {EPISODES} episodes with the most likely actions, as a share of the best return "
        "that exists; the random policy's is by the side. Minutes are those of the longest run, "
        "start and evaluation not counted, on the wall and in CPU time; the machine was shared.",
        "",
        "| task | best | random | arm | seeds | env steps | labels | share of the best, mean (95 "
        "%) | each seed | minutes | CPU minutes |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    verdicts = []
    for task, arms in found.items():
        best, chance = BEST[task], tables.by_chance(arms)
        for arm, some in arms.items():
            shares = [value / best for value in tables.returns(some)]
            longest = max(row["wall_seconds"] for row in some) / 60
            busiest = max(row.get("cpu_seconds", 0.0) for row in some) / 60
            lines.append(
                f"| {task} | {best:g} | {chance:.1f} | {arm} | {len(some)} | "
                f"{max(row['env_steps'] for row in some):,} | "
                f"{max(row['labels'] for row in some) or '-'} | {told(intervals.mean(shares), 3)} "
                f"| {', '.join(f'{share:.3f}' for share in shares)} | {longest:.1f} | "
                f"{busiest:.1f} |"
            )
            if arm == "preferences":
                reached = sum(share >= TARGET for share in shares)
                met = (
                    "met"
                    if reached == len(shares) == SUITES["pixels"].tasks[task].seeds
                    else "missed"
                )
                fast = "met" if longest <= MINUTES else "missed"
                verdicts.append(
                    f"- {task}: {reached} of {len(shares)} seeds reach {TARGET:g} of the best: "
                    f"{met}"
                )
                verdicts.append(f"- {task}: every seed within {MINUTES} minutes: {fast}")
    every = [row for arms in found.values() for some in arms.values() for row in some]
    return "\n".join([*lines, "", *verdicts, "", note, "", tables.made(every)])
