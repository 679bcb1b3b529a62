"""The tables of the learning suites, drawn from their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.report import intervals, rows
from benchmarks.report.intervals import told
from benchmarks.rig.suites import CONTROL, EPISODES, SUITES, Measurement

Row = dict[str, Any]
Found = dict[str, dict[str, list[Row]]]
"""Task -> arm -> rows, one per seed, by seed."""


def found(suite: str) -> Found:
    """The rows of the present configs, the newest of each seed; what another suite
    measured is taken from there.
    """
    out: Found = {}
    for task in SUITES[suite].tasks:
        for arm in (*SUITES[suite].arms, *SUITES[suite].borrowed):
            lender, lent = SUITES[suite].lender(task, arm) or (suite, arm)
            if some := _rows(lender, task, lent):
                out.setdefault(task, {})[arm] = some
    return out


def shown(suite: str) -> tuple[Found, str]:
    """The rows of each task, and what to say of them: those of before the last change
    where that is all there is.

    A task's rows are all of one kind, so that arms are never compared across a change
    of defaults.
    """
    tasks, aged = found(suite), []
    for task in SUITES[suite].tasks:
        present = tasks.get(task, {})
        before = {}
        for arm in SUITES[suite].arms:
            lender, lent = SUITES[suite].lender(task, arm) or (suite, arm)
            if some := _before(lender, task, lent):
                before[arm] = some
        if before and len(present) < 2 and len(before) > len(present):
            tasks[task] = before
            aged.append(task)
    order = [task for task in SUITES[suite].tasks if task in tasks]
    note = (
        f"{', '.join(aged)}: measured with the settings of before the last change, and to be "
        "measured again."
    )
    return {task: tasks[task] for task in order}, note if aged else ""


def _rows(suite: str, task: str, arm: str, *, config_sha256: str | None = None) -> list[Row]:
    wanted = config_sha256 or Measurement(suite, task, arm, 0).key()["config_sha256"]
    newest: dict[int, Row] = {}
    for row in rows.read(suite):
        if (row["task"], row["arm"], row["config_sha256"]) == (task, arm, wanted):
            newest[row["seed"]] = row
    return [row for _, row in sorted(newest.items())]


def _before(suite: str, task: str, arm: str) -> list[Row]:
    """The rows of the settings before the present ones."""
    present = Measurement(suite, task, arm, 0).key()["config_sha256"]
    hashes = [
        row["config_sha256"] for row in rows.read(suite) if (row["task"], row["arm"]) == (task, arm)
    ]
    past = [each for each in hashes if each != present]
    return _rows(suite, task, arm, config_sha256=past[-1]) if past else []


def older(suite: str, task: str, arm: str) -> list[Row]:
    """The rows of the config before, where the present one was not measured yet."""
    hashes = [
        row["config_sha256"] for row in rows.read(suite) if (row["task"], row["arm"]) == (task, arm)
    ]
    return _rows(suite, task, arm, config_sha256=hashes[-1]) if hashes else []


def returns(some: Sequence[Row]) -> list[float]:
    """True return of each seed's final policy."""
    return [float(row["true_return"]) for row in some]


def by_chance(arms: dict[str, list[Row]]) -> float:
    """Mean return of uniform actions, over all runs of the task."""
    return float(np.mean([row["random_return"] for some in arms.values() for row in some]))


def made(some: Sequence[Row]) -> str:
    """Where the rows come from."""
    commits = ", ".join(sorted({row["commit"] for row in some}))
    machines = "; ".join(sorted({row["machine"] for row in some}))
    return f"Commit {commits}. Machine: {machines}."


def headline() -> str:
    """The distributed program beside its control arm."""
    tasks, note = shown("headline")
    lines = [
        "## Learning from preferences, distributed",
        "",
        "    python -m benchmarks.learning --suite headline",
        "",
        "`rlhp train CONFIG` as a user runs it: Ray actors, Redis, a teacher process. True "
        f"return of the final policy, mean of {EPISODES} episodes with the most likely actions. "
        "Env steps count the warm-up. F = (R_pref - R_random) / (R_true - R_random); intervals "
        "are 95 % bootstrap over seeds.",
        "",
        "| task | arm | seeds | env steps | labels | true return, mean (95 %) | each seed |"
        " held-out accuracy | correlation |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    verdicts = []
    for task, arms in tasks.items():
        lines += [_whole_line(task, arm, some) for arm, some in arms.items()]
        if {"preferences", CONTROL} <= arms.keys():
            chance = by_chance(arms)
            share = intervals.recovered(
                returns(arms["preferences"]), returns(arms[CONTROL]), chance
            )
            verdicts.append(f"- {task}: F = {told(share)}; random policy {chance:.1f}")
    every = [row for arms in tasks.values() for some in arms.values() for row in some]
    return "\n".join([*lines, "", *verdicts, "", note, "", made(every)])


def _whole_line(task: str, arm: str, some: list[Row]) -> str:
    each = ", ".join(f"{value:,.0f}" for value in returns(some))
    return (
        f"| {task} | {arm} | {len(some)} | {max(row['env_steps'] for row in some):,} | "
        f"{max(row['labels'] for row in some) or '-'} | {told(intervals.mean(returns(some)), 1)} "
        f"| {each} | {_mean_of(some, 'heldout_accuracy')} | "
        f"{_mean_of(some, 'return_correlation')} |"
    )


def _mean_of(some: list[Row], name: str) -> str:
    known = [row[name] for row in some if row[name] is not None]
    return f"{np.mean(known):.2f}" if known else "-"


def mujoco(suite: str = "mujoco") -> str:
    """F by labels and task."""
    tasks, note = shown(suite)
    counts = [arm for arm in SUITES[suite].arms if arm != CONTROL]
    lines = [
        f"## {SUITES[suite].title}: F by labels",
        "",
        f"    python -m benchmarks.learning --suite {suite}",
        "",
        "Termination hidden, the paper's rewards (`rlhp/envs/mujoco_tasks.py`), one set of "
        "hyperparameters for all tasks (`configs/mujoco.yaml`), serial program. Small tasks "
        "100,000 env steps, the others 300,000 with episodes of 300 steps. 0 labels: the policy "
        "follows an untrained ensemble. F per cell: value and 95 % interval; below it the true "
        "return of every seed.",
        "",
        "| task | seeds | random | control | "
        + " | ".join(f"{count} labels" for count in counts)
        + " |",
        "|---|---|---|---|" + "---|" * len(counts),
    ]
    pairs: dict[str, list[tuple[list[float], list[float], float]]] = {count: [] for count in counts}
    for task, arms in tasks.items():
        if CONTROL not in arms:
            continue
        chance, control = by_chance(arms), returns(arms[CONTROL])
        cells = []
        for count in counts:
            ours = returns(arms.get(count, []))
            if ours:
                pairs[count].append((ours, control, chance))
                cells.append(
                    f"**{told(intervals.recovered(ours, control, chance))}**<br>{_each(ours)}"
                )
            else:
                cells.append("not run")
        seeds = "/".join(str(len(arms.get(arm, []))) for arm in (CONTROL, *counts))
        lines.append(
            f"| {task} | {seeds} | {chance:,.1f} | {_each(control)} | {' | '.join(cells)} |"
        )
    means = [
        told(intervals.recovered_over_tasks(pairs[count])) if pairs[count] else "-"
        for count in counts
    ]
    lines.append(
        f"| **mean F over tasks** | | | 1 | {' | '.join(f'**{value}**' for value in means)} |"
    )
    aims = (
        "The mean is over tasks that have run. Aims: F(350) at least 0.8, F(700) at least "
        "0.95, F(1400) at least 1."
    )
    return "\n".join([*lines, "", aims, "", note, "", made(rows.read(suite))])


def _each(values: Sequence[float]) -> str:
    digits = 0 if max(abs(value) for value in values) >= 100 else 1
    return ", ".join(f"{value:,.{digits}f}" for value in values)


SIGNS = {
    "offline labels": "worse",
    "random queries": "about the same, or a little worse",
    "no ensemble": "about the same, or a little worse",
    "no regularization": "about the same, or a little worse",
    "single steps": "worse at equal labels",
    "target": "worse, or about the same",
}
"""What Christiano et al. 2017, section 3.3 and figures 5 and 6 report on MuJoCo tasks.
"""


def ablations() -> str:
    """What each part of the method is worth."""
    tasks, note = shown("ablations")
    lines = [
        "## Ablations",
        "",
        "    python -m benchmarks.learning --suite ablations",
        "",
        "Christiano et al. 2017, section 3.3: the full method at 700 labels with one part taken "
        "away. F, and below it the true return of every seed.",
        "",
        f"| arm | {' | '.join(tasks)} | published |",
        "|---|" + "---|" * (len(tasks) + 1),
    ]
    for arm in SUITES["ablations"].arms:
        cells = [_f_cell(arms, arm) for arms in tasks.values()]
        lines.append(f"| {arm} | {' | '.join(cells)} | {SIGNS.get(arm, '')} |")
    return "\n".join([*lines, "", note, "", made(rows.read("ablations"))])


def _f_cell(arms: dict[str, list[Row]], arm: str) -> str:
    if arm not in arms or CONTROL not in arms:
        return "not run"
    share = intervals.recovered(returns(arms[arm]), returns(arms[CONTROL]), by_chance(arms))
    return f"**{told(share)}**<br>{_each(returns(arms[arm]))}"


def teachers() -> str:
    """What faulty answers cost."""
    tasks, note = shown("teachers")
    lines = [
        "## Teachers",
        "",
        "    python -m benchmarks.learning --suite teachers",
        "",
        "B-Pref's teachers (Lee et al. 2021) and more mistakes: (R - R_random) / (R_oracle - "
        "R_random) with the same labels, and below it the true return of every seed. `single` is "
        "one reward model and random pairs, the plain way to fit; its ratio is to the oracle of "
        "the ensemble.",
        "",
        f"| teacher | {' | '.join(tasks)} |",
        "|---|" + "---|" * len(tasks),
    ]
    for arm in SUITES["teachers"].arms:
        perfect = "oracle"
        cells = []
        for arms in tasks.values():
            if arm in arms and perfect in arms:
                share = intervals.recovered(
                    returns(arms[arm]), returns(arms[perfect]), by_chance(arms)
                )
                cells.append(f"**{told(share)}**<br>{_each(returns(arms[arm]))}")
            else:
                cells.append("not run")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", note, "", made(rows.read("teachers"))])
