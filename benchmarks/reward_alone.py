"""The reward model alone: the same stored pairs given to rlhp's Fitter and to
imitation's reward trainers.

    python -m benchmarks.reward_alone  # what is missing; hours on two cores, see --most
    python -m benchmarks.reward_alone --task halfcheetah --most 200
    python -m benchmarks.reward_alone --quick  # minutes: does everything run? Keeps no rows

`rlhp` and `imitation ensemble` have equally many members; `imitation basic` is its
default, a single net. All go 200 times through the pairs: rlhp's `pretrain_epochs`, and
imitation's default before the policy learns. All else is each system's own default, but
imitation is told our error rate. Seconds are those of the processor, on one thread
each, from the first look at the pairs to a fitted reward, so they hardly depend on what
else the machine does. `rlhp, stopped early` ends its passes ten after the best loss on
held-out answers (`reward.early_stop_epochs=10`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.imitation_peer import venv
from benchmarks.report import rows
from benchmarks.report.reward_alone_tables import (
    COUNTS,
    FLIPPED,
    NAME,
    OURS,
    SYSTEMS,
    THEIRS,
    Row,
    section,
)
from benchmarks.rig.trajectories import SOURCES, digest, pairs
from rlhp.envs.make import probe
from rlhp.reward.fit import Fitter
from rlhp.reward.versions import RewardPredictor
from rlhp.types import Answer, Array, Preference, Segment

EPOCHS = 200
QUICK_EPOCHS = 2

Cell = tuple[str, int, float]
"""System, pairs, share of wrong answers."""


def key(task: str, seed: int, cell: Cell, *, epochs: int = EPOCHS) -> Row:
    """What makes a row the same measurement: its settings, and the episodes that its
    pairs come from.
    """
    system, count, flipped = cell
    reward = SOURCES[task].load().reward.model_dump(mode="json")
    settings = {name: reward[name] for name in ("members", "error_rate")}
    if system in OURS:
        settings = {**reward, "early_stop_epochs": OURS[system]}
    named = {
        "task": task,
        "system": system,
        "seed": seed,
        "pairs": count,
        "flipped": flipped,
        "epochs": epochs,
    }
    return {**named, "config_sha256": _digest(settings), "episodes_sha256": digest(task)}


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
    # what torch does once is in nobody's time
    fit(task, data, pairs=2, flipped=0, seed=seed, epochs=1)
    for cell in (cell for cell in cells if cell[0] in OURS):
        system, count, flipped = cell
        stop = OURS[system]
        found.append(
            (
                cell,
                *fit(
                    task,
                    data,
                    pairs=count,
                    flipped=flipped,
                    seed=seed,
                    epochs=epochs,
                    early_stop=stop,
                ),
            )
        )
    if theirs := [cell for cell in cells if cell[0] in THEIRS]:
        found += _peer(task, data, theirs, seed=seed, epochs=epochs)
    return [
        {**key(task, seed, cell, epochs=epochs), **judge(data, seen), **took}
        for cell, seen, took in found
    ]


def fit(
    task: str,
    data: dict[str, Array],
    *,
    pairs: int,
    flipped: float,
    seed: int,
    epochs: int,
    early_stop: int = 0,
) -> tuple[Array, dict[str, float]]:
    """rlhp: predicted rewards [H, 2, K] of the held-out pairs, and the seconds that
    fitting took.
    """
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
    seconds = {
        "fit_seconds": time.monotonic() - clock,
        "fit_cpu_seconds": time.process_time() - processor,
    }
    held_out = data["heldout_actions"]
    judged = data["heldout_obs"][:, :, :-1].reshape(-1, obs.shape[-1])
    encoded = spaces.action.encode(held_out.reshape(-1, actions.shape[-1]))
    return RewardPredictor(weights).predict(judged, encoded).reshape(held_out.shape[:3]), seconds


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
    """Predicted rewards [H, 2, K] beside what is true of the held-out pairs; ties are
    left out of the accuracy.
    """
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
    return Preference(
        query=f"pair {pair}", candidates=(first, second), answer=answer, labeler="bench"
    )


def _segment(data: dict[str, Array], pair: int, side: int) -> Segment:
    name = f"{pair}/{side}"
    return Segment(
        id=name,
        run="bench",
        env_runner=0,
        episode=name,
        start=0,
        obs={"": data["obs"][pair, side]},
        actions=data["actions"][pair, side],
        env_reward=None,
        predicted_reward=None,
        reward_version=None,
        policy_version=0,
        env_steps=0,
        terminated=False,
        truncated=False,
    )


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=sorted(SOURCES), action="append", help="default: both")
    parser.add_argument("--system", choices=SYSTEMS, action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0..N-1 of pairs and networks")
    parser.add_argument(
        "--most", type=int, default=max(COUNTS), help="leave out larger numbers of pairs"
    )
    parser.add_argument("--quick", action="store_true", help="50 pairs, two passes, no rows kept")
    arguments = parser.parse_args()
    tasks = arguments.task or list(SOURCES)
    if arguments.quick:
        cells = [(system, COUNTS[0], FLIPPED[1]) for system in SYSTEMS]
        print(
            section([row for task in tasks for row in measure(task, 0, cells, epochs=QUICK_EPOCHS)])
        )
        return
    # the cheap ones of every task first
    for count in (count for count in COUNTS if count <= arguments.most):
        for task in tasks:
            for seed in range(arguments.seeds):
                run(task, seed, count, systems=arguments.system or SYSTEMS)
    print(section())


if __name__ == "__main__":
    main()
