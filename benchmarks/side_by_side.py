"""rlhp beside imitation 1.0.1: the same environment, the same real env steps, the same
number of labels.

    python -m benchmarks.side_by_side  # both tasks, all seeds: half an hour, alone
    python -m benchmarks.side_by_side --task pendulum --seeds 1
    python -m benchmarks.side_by_side --quick  # minutes: does everything run? Keeps no rows

imitation goes first, with its own published settings
(benchmarks/imitation_peer/settings.py); its environments are counted, since it takes
more steps than it is asked for. rlhp then gets as many, warm-up included: whole batches
that are no more. Both teachers are exact, both policies are judged by 30 episodes of
their most likely actions on the plain env reward. Each run is a process of its own, the
systems alternate, and both have one thread per process.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from statistics import mean
from typing import Any

from benchmarks.imitation_peer import venv
from benchmarks.imitation_peer.settings import SETTINGS, fingerprint, quick
from benchmarks.report import intervals, rows, tables
from benchmarks.report.intervals import told
from benchmarks.rig.suites import config_hash
from rlhp.config import loading

NAME = "side_by_side"
CONFIGS = venv.ROOT / "configs"
SPEED_UP = 2.0
"""rlhp's real env steps per second over imitation's: the aim on every task."""


@dataclass(frozen=True)
class Task:
    """How rlhp runs a task of `imitation_peer.settings`, and what it should reach."""

    config: str
    seeds: int
    aim: float
    """Mean true return."""
    sets: tuple[str, ...] = ()


TASKS = {
    "pendulum": Task("pendulum.yaml", 5, -200.0),
    # the plain env reward, cost of torque included, as imitation's teacher sees it
    "halfcheetah": Task("halfcheetah.yaml", 3, 1900.0, ("env.hide_termination=false",)),
}

Row = dict[str, Any]


def peer_key(task: str, seed: int) -> Row:
    """What makes a row of imitation the same measurement."""
    return {
        "task": task,
        "system": "imitation",
        "seed": seed,
        "config_sha256": fingerprint(SETTINGS[task]),
    }


def our_sets(task: str, seed: int, *, env_steps: int, short: bool = False) -> list[str]:
    """What is changed in the task's config file."""
    peer = quick(SETTINGS[task]) if short else SETTINGS[task]
    # whole batches: the last one ends at the peer's steps or before, never after
    batch = loading.flat(loading.load(CONFIGS / TASKS[task].config))["learner.train_batch_size"]
    last = env_steps - batch + 1
    return [
        f"seed={seed}", f"learner.total_env_steps={last}", f"labels.budget={peer.comparisons}",
        f"evaluation.episodes={peer.episodes}", *TASKS[task].sets,
    ]  # fmt: skip


def our_key(task: str, seed: int, *, env_steps: int) -> Row:
    """What makes a row of rlhp the same measurement: the resolved config, whatever the
    seed.
    """
    config = loading.load(CONFIGS / TASKS[task].config, sets=our_sets(task, 0, env_steps=env_steps))
    return {"task": task, "system": "rlhp", "seed": seed, "config_sha256": config_hash(config)}


def measure_peer(task: str, seed: int, *, short: bool = False) -> Row:
    """One run of imitation."""
    answer = venv.call(
        "train", "--task", task, "--seed", str(seed), *(["--quick"] if short else [])
    )
    return {**peer_key(task, seed), **_timed(answer)}


def measure_ours(task: str, seed: int, *, env_steps: int, short: bool = False) -> Row:
    """One run of rlhp with as many env steps."""
    changes = [
        f"--set={change}" for change in our_sets(task, seed, env_steps=env_steps, short=short)
    ]
    config = str(CONFIGS / TASKS[task].config)
    answer = venv.timed([sys.executable, "-m", "benchmarks.rig.one_run", config, *changes])
    return {**our_key(task, seed, env_steps=env_steps), **_timed(answer)}


def _timed(answer: Row) -> Row:
    """Both speeds: while training, and with the start of the process up to the end of
    training.
    """
    whole = answer.pop("training_ended") - answer.pop("started")
    return {
        **answer,
        "start_to_trained_seconds": whole,
        "steps_per_second": answer["env_steps"] / answer["training_seconds"],
        "steps_per_second_with_start": answer["env_steps"] / whole,
    }


def run(task: str, seeds: int) -> None:
    """Measure what is missing, imitation and rlhp in turn."""
    for seed in range(seeds):
        if not (theirs := _found(peer_key(task, seed))):
            venv.ready()
            theirs = measure_peer(task, seed)
            rows.append(NAME, theirs)
        steps = int(theirs["env_steps"])
        if not _found(our_key(task, seed, env_steps=steps)):
            rows.append(NAME, measure_ours(task, seed, env_steps=steps))


def _found(key: Row) -> Row | None:
    """The row of this measurement, if it was made."""
    return next((row for row in rows.read(NAME) if key.items() <= row.items()), None)


def newest(found: list[Row], task: str, system: str) -> list[Row]:
    """One row per seed, by seed: those of the newest config."""
    mine = [row for row in found if (row["task"], row["system"]) == (task, system)]
    current = {
        row["seed"]: row for row in mine if row["config_sha256"] == mine[-1]["config_sha256"]
    }
    return [current[seed] for seed in sorted(current)]


def section(found: list[Row] | None = None) -> str:
    """The page's table and verdicts, from the rows measured so far; empty without any."""
    found = rows.read(NAME) if found is None else found
    if not found:
        return ""
    lines = [
        "## Beside imitation",
        "",
        "    python -m benchmarks.side_by_side",
        "",
        "imitation 1.0.1 with SB3's PPO and rlhp: the same environment, the same real env steps "
        "(counted at imitation's environments, which take more than asked; rlhp's include the "
        "warm-up) and the same label budget, exact teachers on both sides. True return of the "
        "final policy on the plain env reward, mean of 30 episodes with the most likely actions; "
        "intervals are 95 % bootstrap over seeds. Settings: imitation's tutorial on preference "
        "comparisons, for both tasks; ours: the files in `configs/`. The systems alternate, "
        "nothing else runs, one thread per process; rlhp spreads over processes, imitation is "
        "one. *Training* is the time in imitation's `train()` and in our loop, warm-up, answers "
        "and fitting included; *with start-up* adds all from the start of the process: imports, "
        "environments, Ray, Redis. Neither has evaluation or shutdown.",
        "",
        "| task | system | seeds | env steps | labels | true return, mean (95 %) | each seed | "
        "training | steps/s | steps/s with start-up |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    verdicts = []
    for task in TASKS:
        sides = {system: newest(found, task, system) for system in ("imitation", "rlhp")}
        lines += [_line(task, system, side) for system, side in sides.items() if side]
        if all(sides.values()):
            verdicts.append(_verdict(task, sides["imitation"], sides["rlhp"]))
    made = [tables.made(found)] if all("machine" in row for row in found) else []
    return "\n".join([*lines, "", *verdicts, "", *made])


def _line(task: str, system: str, side: list[Row]) -> str:
    returns = [float(row["true_return"]) for row in side]
    return (
        f"| {task} | {system} | {len(side)} | {_mean(side, 'env_steps'):,.0f} | "
        f"{_mean(side, 'labels'):.0f} | {told(intervals.mean(returns), 1)} | "
        f"{', '.join(f'{value:.0f}' for value in returns)} | "
        f"{_mean(side, 'training_seconds'):.0f} s | {_mean(side, 'steps_per_second'):,.0f} | "
        f"{_mean(side, 'steps_per_second_with_start'):,.0f} |"
    )


def _verdict(task: str, theirs: list[Row], ours: list[Row]) -> str:
    training, whole = (
        _mean(ours, speed) / _mean(theirs, speed)
        for speed in ("steps_per_second", "steps_per_second_with_start")
    )
    reached, aim = _mean(ours, "true_return"), TASKS[task].aim
    return (
        f"- {task}: {training:.2f} times imitation's env steps per second while training, "
        f"{whole:.2f} times with start-up (aim: {SPEED_UP:g}, {_met(training >= SPEED_UP)}); true "
        f"return {reached:.1f} beside {_mean(theirs, 'true_return'):.1f} (aim: {aim:g}, "
        f"{_met(reached >= aim)})"
    )


def _met(reached: bool) -> str:
    return "reached" if reached else "not reached"


def _mean(side: list[Row], field: str) -> float:
    return mean(float(row[field]) for row in side)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=sorted(TASKS), action="append", help="default: both")
    parser.add_argument("--seeds", type=int, help="seeds 0..N-1; default: the task's own number")
    parser.add_argument("--quick", action="store_true", help="one seed, tiny budgets, no rows kept")
    arguments = parser.parse_args()
    tasks = arguments.task or list(TASKS)
    if not arguments.quick:
        for task in tasks:
            run(task, arguments.seeds or TASKS[task].seeds)
        print(section())
        return
    venv.ready()
    found = []
    for task in tasks:
        found.append(measure_peer(task, 0, short=True))
        found.append(measure_ours(task, 0, env_steps=int(found[-1]["env_steps"]), short=True))
    print(section(found))


if __name__ == "__main__":
    main()
