"""Defaults alone, on tasks that no config was tuned on: imitation and SB3 beside rlhp,
and the tables of both.

    python -m benchmarks.unseen --suite unseen-dev --jobs 2     # imitation's and SB3's rows; hours
    python -m benchmarks.unseen --suite unseen-dev --task reach --seeds 1

The rows of rlhp are made by `python -m benchmarks.learning --suite unseen-dev |
unseen-test`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.imitation_peer import venv
from benchmarks.report import intervals, rows, tables
from benchmarks.report.intervals import Estimate, told
from benchmarks.rig.suites import CONTROL, EPISODES, SUITES

PEERS = "unseen_peers"
SYSTEMS = ("imitation", "sb3")
SEEDS = 5
AIMS = {"unseen-dev": (0.95, 0.85), "unseen-test": (0.85, 0.6)}
"""Mean F over tasks, and F of the worst one."""
FREEZE = "4fd72285ff"
"""The commit at which the defaults were frozen, before any test task was run."""

Row = dict[str, Any]


def key(task: str, system: str, seed: int) -> Row:
    """What makes a row of a peer the same measurement."""
    return {"task": task, "system": system, "seed": seed}


def measure(task: str, system: str, seed: int) -> str:
    """Run one and add its row; what is to be told of it."""
    answer = venv.call("unseen", "--task", task, "--system", system, "--seed", str(seed))
    rows.append(PEERS, {**key(task, system, seed), **answer})
    return f"{task} {system} {seed}: {answer['true_return']:.1f}"


def section(suite: str) -> str:
    """One suite's table: F, both arms, and the peers."""
    found = tables.found(suite)
    lines = [
        f"## {SUITES[suite].title}",
        "",
        f"    python -m benchmarks.learning --suite {suite} --jobs 2",
        f"    python -m benchmarks.unseen --suite {suite} --jobs 2",
        "",
        _words(suite),
        "",
        "| task | env steps, labels | random | control arm | SB3's PPO | from preferences | "
        "imitation | F (95 %) | fresh accuracy | alarms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    pairs: dict[str, tuple[list[float], list[float], float]] = {}
    flat = []
    for task, arms in found.items():
        if {"preferences", CONTROL} <= arms.keys():
            chance = tables.by_chance(arms)
            pair = tables.returns(arms["preferences"]), tables.returns(arms[CONTROL]), chance
            lines.append(_line(task, arms["preferences"], *pair))
            if learns(arms[CONTROL], chance):
                pairs[task] = pair
            else:
                flat.append(task)
    shown = [row for arms in found.values() for some in arms.values() for row in some]
    verdicts = _verdicts(suite, pairs)
    if flat:
        verdicts.append(
            f"- In no mean, since the gain of the control arm is within the spread of its own "
            f"episodes: {', '.join(flat)}"
        )
    return "\n".join([*lines, "", *verdicts, "", tables.made(shown)])


def learns(control: Sequence[Row], chance: float) -> bool:
    """Whether the control arm gains more than its episodes of one policy differ: else F
    would be a quotient of noise.
    """
    gain = sum(row["true_return"] - chance for row in control) / len(control)
    spread = sum(row["true_return_std_over_episodes"] for row in control) / len(control)
    return bool(gain > spread)


def _words(suite: str) -> str:
    frozen = f" Defaults were frozen at commit {FREEZE}." if suite == "unseen-test" else ""
    return (
        "Nothing is set but the environment, the budgets and the length of segments. Serial "
        f"program; mean true return of {EPISODES} episodes with the most likely actions, and "
        "below it each seed's. imitation 1.0.1 and SB3's PPO have their own defaults, the same "
        "env steps (imitation takes a few more) and labels, and flat spaces." + frozen
    )


def _line(
    task: str, rows_: Sequence[Row], ours: list[float], control: list[float], chance: float
) -> str:
    share = intervals.recovered(ours, control, chance)
    fresh = [row["fresh_accuracy"] for row in rows_ if row.get("fresh_accuracy") is not None]
    alarms = [name for row in rows_ for name in row.get("alarms", [])]
    told_alarms = ", ".join(f"{name} {alarms.count(name)}" for name in sorted(set(alarms))) or "-"
    imitation, sb3 = (_peer(task, system) for system in SYSTEMS)
    budget = f"{max(row['env_steps'] for row in rows_):,}, {max(row['labels'] for row in rows_)}"
    return (
        f"| {task} | {budget} | {chance:,.1f} | {_cell(control)} | {_cell(sb3)} | {_cell(ours)} | "
        f"{_cell(imitation)} | **{told(share)}** | {sum(fresh) / max(1, len(fresh)):.2f} | "
        f"{told_alarms} |"
    )


def _cell(values: list[float]) -> str:
    if not values:
        return "not run"
    return f"{told(intervals.mean(values), 1)}<br>{', '.join(f'{value:,.0f}' for value in values)}"


def _peer(task: str, system: str) -> list[float]:
    newest = {
        row["seed"]: row
        for row in rows.read(PEERS)
        if (row["task"], row["system"]) == (task, system)
    }
    return [float(row["true_return"]) for _, row in sorted(newest.items())]


def _verdicts(suite: str, pairs: dict[str, tuple[list[float], list[float], float]]) -> list[str]:
    if not pairs:
        return []
    mean, worst = AIMS[suite]
    whole = intervals.recovered_over_tasks(list(pairs.values()))
    each = {task: intervals.recovered(*pair)[0] for task, pair in pairs.items()}
    low = min(each, key=lambda task: each[task])
    lines = [
        f"- Mean F over {len(pairs)} tasks: {told(whole)} (aim: {mean:g}, "
        f"{_met(whole[0] >= mean)}); lowest: {low}, {each[low]:.2f} (aim: {worst:g}, "
        f"{_met(each[low] >= worst)})"
    ]
    from_preferences = {task: ours for task, (ours, _, _) in pairs.items()}
    on_reward = {task: control for task, (_, control, _) in pairs.items()}
    for words, system, arm in (
        ("imitation, from preferences", "imitation", from_preferences),
        ("SB3's PPO, control arm", "sb3", on_reward),
    ):
        told_of = {task: _beside(returns, _peer(task, system)) for task, returns in arm.items()}
        counts = [
            f"{sum(value == name for value in told_of.values())} {name}"
            for name in ("ahead", "even", "behind")
        ]
        behind = ", ".join(task for task, value in told_of.items() if value == "behind")
        lines.append(f"- Beside {words}: {', '.join(counts)}" + (f" ({behind})" if behind else ""))
    return lines


def _beside(ours: list[float], theirs: list[float]) -> str:
    """Even where the 95 % intervals of the means overlap."""
    if not theirs:
        return "not run"
    mine, peers = _interval(ours), _interval(theirs)
    if mine[1] > peers[2]:
        return "ahead"
    return "behind" if mine[2] < peers[1] else "even"


def _interval(values: list[float]) -> Estimate:
    return intervals.mean(values)


def _met(reached: bool) -> str:
    return "reached" if reached else "not reached"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", choices=sorted(AIMS), required=True)
    parser.add_argument("--task", action="append", help="default: all of the suite")
    parser.add_argument("--system", choices=SYSTEMS, action="append", help="default: both")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    given = parser.parse_args()
    wanted = [
        (task, system, seed)
        for seed in range(given.seeds)
        for task in given.task or SUITES[given.suite].tasks
        for system in given.system or SYSTEMS
        if not rows.done(PEERS, key(task, system, seed))
    ]
    venv.ready()
    print(f"{len(wanted)} runs are missing", flush=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        for line in pool.map(lambda one: measure(*one), wanted):
            print(line, flush=True)


if __name__ == "__main__":
    main()
