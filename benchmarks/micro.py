"""What the parts cost one by one, at the size of HalfCheetah (17 observations, 6
actions, segments of 30 steps).

    python -m benchmarks.micro          # every figure, five repeats, two minutes, alone
    python -m benchmarks.micro --figure queue
    python -m benchmarks.micro --quick  # one repeat, printed and not stored

    label        predicting rewards with three members of 64-64, from raw arrays on
    fit          a gradient step of three members beside one of a single member, at the defaults
    queue        leasing and answering over the embedded Redis, from processes of their own
    dataset      a preference on disk, synced: two segments and one answer
    checkpoint   saving a run's policy
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import rows, tables
from benchmarks.rig import alone
from benchmarks.rig.answering import LABELERS, queue
from benchmarks.rig.samples import ACTION, OBS, SPACES, STEPS, preference
from rlhp.config import loading
from rlhp.config.schema import RewardConfig, RunConfig
from rlhp.envs.make import make_env, probe
from rlhp.learn.checkpoint import Checkpoints
from rlhp.learn.ppo.rllib import algorithm_config
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.preferences.events import EventRow
from rlhp.reward.fit import Fitter
from rlhp.reward.service import RewardModel
from rlhp.system.memory import keep_freed_memory
from rlhp.system.ray import ray_cluster
from rlhp.types import Preference

REPEATS = 5
TRANSITIONS = (1024, 2048)
"""What one env runner of two, and what a single one, has labeled at a time in the
shipped configs.
"""
PREFERENCES = 350
"""Half of the usual budget."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--figure", choices=sorted(FIGURES), action="append", help="default: all")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--quick", action="store_true", help="one repeat, printed and not stored")
    parser.add_argument(
        "--run", type=int, metavar="REPEAT", help="one repeat of one figure, in this process"
    )
    given = parser.parse_args()
    if given.run is not None:
        (figure,) = given.figure
        torch.set_num_threads(1)
        row = {"figure": figure, "repeat": given.run, **FIGURES[figure]()}
        print(json.dumps(row), flush=True)
        if not given.quick:
            rows.append("micro", row)
        return
    for repeat in range(1 if given.quick else given.repeats):
        for figure in given.figure or FIGURES:
            if given.quick or not rows.done("micro", {"figure": figure, "repeat": repeat}):
                quick = ["--quick"] if given.quick else []
                alone.run("benchmarks.micro", "--figure", figure, "--run", str(repeat), *quick)


def label() -> dict[str, Any]:
    """Microseconds of CPU per transition, as `RewardModel.label` is called."""
    draws = np.random.default_rng(0)
    fitter = Fitter(RewardConfig(), spaces=SPACES, seed=0)
    fitter.observe(draws.normal(size=(1000, OBS)), draws.uniform(-1, 1, (1000, ACTION)))
    weights = fitter.publish(1)
    model = RewardModel(SPACES, newest=lambda: weights)
    found = {}
    for count in TRANSITIONS:
        obs = draws.normal(size=(8, count // 8, OBS))
        actions = draws.uniform(-1, 1, (8, count // 8, ACTION)).astype(np.float32)
        seconds = [_cpu_seconds(partial(model.predict, obs, actions)) for _ in range(300)]
        found[f"us_per_transition_{count}"] = 1e6 * statistics.median(seconds) / count
    return found


def fit() -> dict[str, Any]:
    """Milliseconds of CPU per gradient step, by number of members; looks at all
    preferences included, as in a run.
    """
    keep_freed_memory()  # as the reward trainer does
    preferences = [preference(number) for number in range(PREFERENCES)]
    fitters = {}
    for members in (1, 3):
        fitters[members] = Fitter(RewardConfig(members=members), spaces=SPACES, seed=0)
        fitters[members].add(preferences)
        fitters[members].train(64 * 10)
    seconds: dict[int, list[float]] = {members: [] for members in fitters}
    for _ in range(6):
        for members, fitter in fitters.items():  # they take turns, so that a slow moment meets both
            seconds[members].append(_cpu_seconds(partial(fitter.train, 64 * 50)) / 50)
    one, three = (1e3 * statistics.median(seconds[members]) for members in (1, 3))
    return {"ms_per_step_1": one, "ms_per_step_3": three, "ratio": three / one}


def dataset() -> dict[str, Any]:
    """Milliseconds per preference on disk: one at a time, and ten at a time."""
    found = {}
    for together in (1, 10):
        with tempfile.TemporaryDirectory() as scratch:
            header = {
                "run_ids": ["r"],
                "env": {"id": "bench"},
                "spaces": SPACES,
                "segment_length": STEPS,
            }
            stored = PreferenceDataset.create(Path(scratch) / "preferences", header=header)
            preferences = iter([preference(number) for number in range(30 * together)])
            seconds = [_seconds(partial(_append, stored, preferences, together)) for _ in range(30)]
            found[f"ms_per_preference_{together}"] = 1e3 * statistics.median(seconds) / together
    return found


def checkpoint() -> dict[str, Any]:
    """Milliseconds to save a HalfCheetah run's policy durably, and its size."""
    sets = ["name=bench", "rollout.num_env_runners=0", "labels.source=none"]
    config = loading.load(alone.ROOT / "configs" / "halfcheetah.yaml", sets=sets)
    with ray_cluster(config, cpus=1), tempfile.TemporaryDirectory() as scratch:
        algorithm = algorithm_config(
            config, probe(config.env).spaces, action_space=_action_space(config)
        ).build_algo()
        algorithm.train()
        checkpoints = Checkpoints(Path(scratch), keep=1)
        seconds = [
            _seconds(lambda: checkpoints.save(algorithm, env_steps=1, counters={}))
            for _ in range(5)
        ]
        (newest,) = checkpoints.all()
        size = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
        algorithm.stop()
    return {"ms": 1e3 * statistics.median(seconds), "bytes": size}


FIGURES: dict[str, Callable[[], dict[str, Any]]] = {
    each.__name__: each for each in (label, fit, queue, dataset, checkpoint)
}


def section() -> str:
    """Markdown for the page."""
    found: dict[str, list[dict[str, Any]]] = {figure: [] for figure in FIGURES}
    for row in rows.read("micro"):
        found[row["figure"]].append(row)
    lines = [
        "## Parts",
        "",
        "    python -m benchmarks.micro",
        "",
        "At the size of HalfCheetah: 17 observations, 6 actions, segments of 30 steps, one torch "
        f"thread. Medians over {max((len(of) for of in found.values()), default=0)} processes.",
        "",
        "| what | median (lowest to highest) | target |",
        "|---|---|---|",
    ]
    for figure, name, what, unit, target in LINES:
        values = [row[name] for row in found[figure]]
        if not values:
            continue
        middle = statistics.median(values)
        verdict = ""
        if target is not None:
            met = middle >= target if target >= 1000 else middle <= target
            verdict = (
                f"{'at least' if target >= 1000 else 'at most'} {target:,g}: "
                f"{'met' if met else 'missed'}"
            )
        lines.append(
            f"| {what} | {_figure(middle)} {unit} ({_figure(min(values))} to "
            f"{_figure(max(values))}) | {verdict} |"
        )
    return "\n".join([*lines, "", tables.made(rows.read("micro"))])


Line = tuple[str, str, str, str, float | None]
"""Figure, name in its row, words, unit, target (a rate is at least 1,000 and wants to
be high).
"""
LINES: tuple[Line, ...] = (
    *(
        (
            "label",
            f"us_per_transition_{count}",
            f"labeling, {count} transitions a call, 3 members",
            "us CPU each",
            1.5,
        )
        for count in TRANSITIONS
    ),
    (
        "fit",
        "ms_per_step_3",
        "gradient step of 3 members, 64 pairs x 30 steps each",
        "ms CPU",
        None,
    ),
    ("fit", "ms_per_step_1", "gradient step of 1 member", "ms CPU", None),
    ("fit", "ratio", "3 members over 1", "times", 1.5),
    ("queue", "asked_per_second", "queries asked, with both segments, one process", "/s", None),
    *(
        (
            "queue",
            f"clients_{count}_per_second",
            f"lease and answer, {count} client process(es)",
            "/s",
            target,
        )
        for count, target in zip(LABELERS, (None, 5000.0), strict=True)
    ),
    *(
        (
            "queue",
            f"labelers_{count}_per_second",
            f"whole labelers of a run, {count} process(es)",
            "/s",
            None,
        )
        for count in LABELERS
    ),
    ("dataset", "ms_per_preference_1", "a preference on disk, synced, one at a time", "ms", None),
    ("dataset", "ms_per_preference_10", "the same, ten at a time", "ms each", None),
    ("checkpoint", "ms", "checkpoint of the policy, synced", "ms", None),
    ("checkpoint", "bytes", "its size", "bytes", None),
)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _cpu_seconds(call: Callable[[], object]) -> float:
    """CPU seconds of this process, which has one thread at work: on a shared machine they
    say more than the wall clock.
    """
    began = time.process_time()
    call()
    return time.process_time() - began


def _append(stored: PreferenceDataset, preferences: Iterator[Preference], count: int) -> None:
    new = list(itertools.islice(preferences, count))
    stored.add_segments([segment for each in new for segment in (each.first, each.second)])
    stored.add_events([_event(each) for each in new])


def _event(preference: Preference) -> EventRow:
    return EventRow(
        query_id=preference.query,
        candidate_ids=(preference.first.id, preference.second.id),
        event="answer",
        answer=preference.answer,
        labeler=preference.labeler,
        labeler_kind="teacher",
        rev=1,
    )


def _action_space(config: RunConfig) -> Any:
    env = make_env(config.env)
    env.close()  # type: ignore[no-untyped-call]
    return env.action_space


if __name__ == "__main__":
    main()
