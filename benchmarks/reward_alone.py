"""The reward model alone: the same stored pairs given to rlhp's Fitter and to imitation's reward trainers.

    python -m benchmarks.reward_alone                              # what is missing; hours on two cores, see --most
    python -m benchmarks.reward_alone --task halfcheetah --most 200
    python -m benchmarks.reward_alone --quick                      # minutes: does everything run? Keeps no rows

`rlhp` and `imitation ensemble` have equally many members; `imitation basic` is its default, a single net. All go
200 times through the pairs: rlhp's `pretrain_epochs`, and imitation's default before the policy learns. All else is
each system's own default, but imitation is told our error rate. Seconds are those of the processor, on one thread
each, from the first look at the pairs to a fitted reward, so they hardly depend on what else the machine does.
`rlhp, stopped early` ends its passes ten after the best loss on held-out answers (`reward.early_stop_epochs=10`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import rows, tables
from benchmarks.imitation_peer import venv
from benchmarks.trajectories import SOURCES, pairs
from rlhp.reward.fit import Fitter
from rlhp.reward.model import Labeller
from rlhp.rollout.envs import probe
from rlhp.types import Answer, Array, Preference, Segment

NAME = "reward_alone"
COUNTS = (50, 200, 700, 1400)
FLIPPED = (0.0, 0.1, 0.3)
EPOCHS = 200
QUICK_EPOCHS = 2
OURS = {"rlhp": 0, "stopped": 10}
"""System -> `reward.early_stop_epochs`."""
THEIRS = ("ensemble", "basic")
SYSTEMS = (*OURS, *THEIRS)
NAMES = {
    "rlhp": "rlhp",
    "stopped": "rlhp, stopped early",
    "ensemble": "imitation ensemble",
    "basic": "imitation basic",
}
FASTER = 10.0
"""imitation's ensemble's fitting seconds over rlhp's: the aim."""
STYLES = {"rlhp": "o-#0072B2", "stopped": "D-#56B4E9", "ensemble": "s--#D55E00", "basic": "^:#009E73"}

Row = dict[str, Any]
Cell = tuple[str, int, float]
"""System, pairs, share of wrong answers."""
Place = tuple[str, str, int, float]
"""Task, and its cell."""
Cells = dict[Place, list[Row]]  # one row per seed


def key(task: str, seed: int, cell: Cell, *, epochs: int = EPOCHS) -> Row:
    """What makes a row the same measurement."""
    system, count, flipped = cell
    reward = SOURCES[task].load().reward.model_dump(mode="json")
    settings = {name: reward[name] for name in ("members", "error_rate")}
    if system in OURS:
        settings = {**reward, "early_stop_epochs": OURS[system]}
    named = {"task": task, "system": system, "seed": seed, "pairs": count, "flipped": flipped, "epochs": epochs}
    return {**named, "config_sha256": _digest(settings)}


def missing(task: str, seed: int, count: int, *, systems: Sequence[str] = SYSTEMS) -> list[Cell]:
    """The cells of this many pairs that have no row yet."""
    cells = [(system, count, flipped) for flipped in FLIPPED for system in systems]
    return [cell for cell in cells if not rows.done(NAME, key(task, seed, cell))]


def run(task: str, seed: int, count: int, *, systems: Sequence[str] = SYSTEMS) -> None:
    """Measure what is missing of this many pairs, one share of wrong answers at a time."""
    cells = missing(task, seed, count, systems=systems)
    for flipped in FLIPPED:
        if some := [cell for cell in cells if cell[2] == flipped]:
            for row in measure(task, seed, some):
                rows.append(NAME, row)


def measure(task: str, seed: int, cells: Sequence[Cell], *, epochs: int = EPOCHS) -> list[Row]:
    """Fit every cell; rows in no particular order."""
    data = pairs(task, seed=seed)
    found = []
    fit(task, data, pairs=2, flipped=0, seed=seed, epochs=1)  # what torch does once is in nobody's time
    for cell in (cell for cell in cells if cell[0] in OURS):
        system, count, flipped = cell
        stop = OURS[system]
        found.append((cell, *fit(task, data, pairs=count, flipped=flipped, seed=seed, epochs=epochs, early_stop=stop)))
    if theirs := [cell for cell in cells if cell[0] in THEIRS]:
        found += _peer(task, data, theirs, seed=seed, epochs=epochs)
    return [{**key(task, seed, cell, epochs=epochs), **judge(data, seen), **took} for cell, seen, took in found]


def fit(
    task: str, data: dict[str, Array], *, pairs: int, flipped: float, seed: int, epochs: int, early_stop: int = 0
) -> tuple[Array, dict[str, float]]:
    """rlhp: predicted rewards [H, 2, K] of the held-out pairs, and the seconds that fitting took."""
    config, spaces = SOURCES[task].load(), probe(SOURCES[task].load().env).spaces
    preferences = [_preference(data, n, flipped=flipped) for n in range(pairs)]
    steps = [data["obs"][:pairs, :, :-1], data["actions"][:pairs]]
    obs, actions = (part.reshape(-1, part.shape[-1]) for part in steps)
    torch.set_num_threads(1)  # as in a run
    clock, processor = time.monotonic(), time.process_time()
    fitter = Fitter(config.reward, spaces=spaces, seed=seed)
    fitter.observe(obs, spaces.action.encode(actions))
    fitter.add(preferences)
    fitter.pretrain(epochs, early_stop=early_stop)
    weights = fitter.publish(1)
    seconds = {"fit_seconds": time.monotonic() - clock, "fit_cpu_seconds": time.process_time() - processor}
    held_out = data["heldout_actions"]
    judged = data["heldout_obs"][:, :, :-1].reshape(-1, obs.shape[-1])
    encoded = spaces.action.encode(held_out.reshape(-1, actions.shape[-1]))
    return Labeller(weights).label(judged, encoded).reshape(held_out.shape[:3]), seconds


def _peer(
    task: str, data: dict[str, Array], cells: Sequence[Cell], *, seed: int, epochs: int
) -> list[tuple[Cell, Array, dict[str, float]]]:
    venv.ready()
    reward = SOURCES[task].load().reward
    settings = {
        "seed": seed, "epochs": epochs, "members": reward.members, "error_rate": reward.error_rate,
        "cells": list(cells),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        files = [str(Path(scratch) / name) for name in ("pairs.npz", "predicted.npz")]
        np.savez(files[0], allow_pickle=False, **data)
        answer = venv.call("fit", *files, "--task", json.dumps(settings))
        with np.load(files[1], allow_pickle=False) as predicted:
            return [(cell, predicted[str(n)], answer["cells"][n]) for n, cell in enumerate(cells)]


def judge(data: dict[str, Array], predicted: Array) -> dict[str, float]:
    """Predicted rewards [H, 2, K] beside what is true of the held-out pairs; ties are left out of the accuracy."""
    true = data["heldout_rewards"].astype(np.float64)
    returns, guessed = true.sum(-1), predicted.astype(np.float64).sum(-1)
    told_apart = returns[:, 0] != returns[:, 1]
    right = np.sign(returns[:, 0] - returns[:, 1]) == np.sign(guessed[:, 0] - guessed[:, 1])
    return {
        "accuracy": float(right[told_apart].mean()),
        "judged": int(told_apart.sum()),
        "reward_correlation": _correlation(predicted, true),
        "return_correlation": _correlation(guessed, returns),
    }


def _correlation(left: Array, right: Array) -> float:
    return float(np.corrcoef(left.ravel(), right.ravel())[0, 1])


def _preference(data: dict[str, Array], pair: int, *, flipped: float) -> Preference:
    first, second = (_segment(data, pair, side) for side in (0, 1))
    target = float(data["target"][pair])
    if data["draw"][pair] < flipped:
        target = 1 - target
    answer = {1.0: Answer.FIRST, 0.0: Answer.SECOND, 0.5: Answer.TIE}[target]
    return Preference(query=f"pair {pair}", first=first, second=second, answer=answer, labeler="bench")


def _segment(data: dict[str, Array], pair: int, side: int) -> Segment:
    name = f"{pair}/{side}"
    return Segment(
        id=name, run="bench", env_runner=0, episode=name, start=0, obs={"": data["obs"][pair, side]},
        actions=data["actions"][pair, side], env_reward=None, predicted_reward=None, reward_version=None,
        policy_version=0, env_steps=0, terminated=False, truncated=False,
    )  # fmt: skip


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def newest(found: Sequence[Row]) -> Cells:
    """One row per seed in every cell: those measured last."""
    cells: dict[Place, dict[int, Row]] = {}
    for row in found:
        place = (row["task"], row["system"], row["pairs"], row["flipped"])
        cells.setdefault(place, {})[row["seed"]] = row
    return {place: [row for _, row in sorted(seeds.items())] for place, seeds in cells.items()}


def section(found: Sequence[Row] | None = None) -> str:
    """The page's table and verdicts, from the rows measured so far; empty without any."""
    found = rows.read(NAME) if found is None else found
    if not found:
        return ""
    cells = newest(found)
    passes = ", ".join(sorted({str(row["epochs"]) for row in found}))
    lines = [
        "## The reward model alone", "", "    python -m benchmarks.reward_alone", "",
        "The same stored pairs of segments (half of the episodes by a random policy, half by a half-trained one; "
        "HalfCheetah with episodes of 300 steps) given to our fitter and to imitation 1.0.1's reward trainers. "
        f"Equal passes over the pairs ({passes}; *stopped early*: ten after the best held-out loss), 3 members in "
        "every ensemble, one net in *basic*; else each system's defaults, with our error rate for imitation too. "
        "Accuracy on 1,000 held-out pairs from other episodes, ties left out; correlation of predicted with true "
        "rewards, per step and per segment. Seconds are "
        "the processor's, one thread each.", "",
        "| task | pairs | wrong answers | system | seeds | accuracy | correlation, steps | segments | fit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    order = sorted(cells, key=lambda place: (place[0], place[2], place[3], SYSTEMS.index(place[1])))
    lines += [_line(place, cells[place]) for place in order]
    made = [tables.made(list(found))] if all("machine" in row for row in found) else []
    return "\n".join([*lines, "", *_verdicts(cells), "", *made])


def _line(place: Place, seeds: list[Row]) -> str:
    task, system, count, flipped = place
    return (
        f"| {task} | {count} | {flipped:.0%} | {NAMES[system]} | {len(seeds)} | {_mean(seeds, 'accuracy'):.3f} | "
        f"{_mean(seeds, 'reward_correlation'):.2f} | {_mean(seeds, 'return_correlation'):.2f} | "
        f"{_mean(seeds, 'fit_cpu_seconds'):,.2f} s |"
    )


def _verdicts(cells: Cells) -> list[str]:
    """Each of ours beside each of theirs, over all cells that both have."""
    out = []
    for system, peer in product(OURS, THEIRS):
        both = [
            (ours, theirs)
            for (task, name, count, flipped), ours in cells.items()
            if name == system and (theirs := cells.get((task, peer, count, flipped)))
        ]
        if not both:
            continue
        gains = [_mean(ours, "accuracy") - _mean(theirs, "accuracy") for ours, theirs in both]
        times = [_mean(theirs, "fit_cpu_seconds") / _mean(ours, "fit_cpu_seconds") for ours, theirs in both]
        line = (
            f"- {NAMES[system]} beside {NAMES[peer]}, {len(both)} cells: accuracy {np.mean(gains):+.3f} on average, "
            f"{min(gains):+.3f} to {max(gains):+.3f} (aim: not lower, {_met(np.mean(gains) >= 0)}); "
            f"fitted {median(times):.0f} times as fast, {min(times):.0f} to {max(times):.0f}"
        )
        out.append(line + (f" (aim: {FASTER:g}, {_met(min(times) >= FASTER)})" if peer == "ensemble" else ""))
    return out


def _met(reached: Any) -> str:
    return "reached" if reached else "not reached"


def _mean(seeds: Sequence[Row], name: str) -> float:
    return float(np.mean([row[name] for row in seeds]))


def plot(path: Path) -> bool:
    """Held-out accuracy over pairs, one panel per task and share of wrong answers; False without rows."""
    cells = newest(rows.read(NAME))
    tasks = sorted({place[0] for place in cells})
    if not tasks:
        return False
    from matplotlib.figure import Figure  # half a second that a measurement does without

    figure = Figure(figsize=(3.4 * len(FLIPPED), 2.9 * len(tasks)), layout="constrained")
    grid = figure.subplots(len(tasks), len(FLIPPED), sharex=True, sharey=True, squeeze=False)
    for panels, task in zip(grid, tasks, strict=True):
        for panel, flipped in zip(panels, FLIPPED, strict=True):
            _panel(panel, cells, task=task, flipped=flipped)
        panels[0].set_ylabel("held-out accuracy")
    for panel in grid[-1]:
        panel.set_xlabel("pairs to learn from")
    grid[0, -1].legend(frameon=False, fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return True


def _panel(panel: Any, cells: Cells, *, task: str, flipped: float) -> None:
    for system, style in STYLES.items():
        counts = sorted(place[2] for place in cells if (place[0], place[1], place[3]) == (task, system, flipped))
        shares = [_mean(cells[task, system, count, flipped], "accuracy") for count in counts]
        panel.plot(counts, shares, style[:-7], color=style[-7:], label=NAMES[system], markersize=4)
    panel.set_title(f"{task}, {flipped:.0%} wrong answers", loc="left", fontsize=10)
    panel.set_xscale("log")
    panel.set_xticks(COUNTS, [f"{count:,}" for count in COUNTS])
    panel.minorticks_off()
    panel.grid(color="#e5e5e5")
    panel.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(SOURCES), action="append", help="default: both")
    parser.add_argument("--system", choices=SYSTEMS, action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0..N-1 of pairs and networks")
    parser.add_argument("--most", type=int, default=max(COUNTS), help="leave out larger numbers of pairs")
    parser.add_argument("--quick", action="store_true", help="50 pairs, two passes, no rows kept")
    arguments = parser.parse_args()
    tasks = arguments.task or list(SOURCES)
    if arguments.quick:
        cells = [(system, COUNTS[0], FLIPPED[1]) for system in SYSTEMS]
        print(section([row for task in tasks for row in measure(task, 0, cells, epochs=QUICK_EPOCHS)]))
        return
    for count in (count for count in COUNTS if count <= arguments.most):  # the cheap ones of every task first
        for task in tasks:
            for seed in range(arguments.seeds):
                run(task, seed, count, systems=arguments.system or SYSTEMS)
    print(section())


if __name__ == "__main__":
    main()
