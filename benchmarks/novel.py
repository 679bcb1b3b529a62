"""Behavior that no env reward describes, learned from a scripted judge: backflips, and
running on one leg.

    python -m benchmarks.novel  # both tasks, 3 seeds, beside the env reward and chance
    python -m benchmarks.novel --task backflip --seeds 1
    python -m benchmarks.novel --quick              # seconds: that it runs, not what it finds

A row is one policy over 10 episodes with its most likely actions. What it did is read
off the simulator states of those episodes, never off the env reward. The states of the
best episode are kept for a clip.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import rows, tables
from benchmarks.rig.suites import config_hash
from rlhp import program
from rlhp.config import loading
from rlhp.config.schema import EnvConfig, RunConfig
from rlhp.envs.make import make_env, make_vector_env, probe
from rlhp.envs.states import sim_state
from rlhp.labeling.judges import BackflipJudge, OneLegJudge
from rlhp.learn.checkpoint import Checkpoints
from rlhp.learn.evaluate import Act, random_act
from rlhp.learn.registry import algorithm_of
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from rlhp.types import Array

CONFIGS = Path(__file__).parent.parent / "configs"
EPISODES = 10
QUICK = {"learner.total_env_steps": 12_288, "labels.budget": 40, "env.max_episode_steps": 200}
ARMS = {"judge": "judge", "none": "env reward", "random": "random policy"}

Figures = dict[str, float]
MakeAct = Callable[[Any], Act]


def backflips(qpos: Array) -> Figures:
    """What a hopper did in one episode [T, 6]: full backward turns of the unwrapped
    pitch, per 1,000 steps.

    A roll on the ground turns it too, so the flips that count are made of turns during
    which nothing but the foot touches the floor.
    """
    seen = BackflipJudge().watch(qpos)
    clean = seen.turns[~(seen.fallen[1:] | seen.fallen[:-1])].sum()
    scale = 1000 / len(qpos)
    return {
        "flips": float(np.floor(max(0.0, clean)) * scale),
        "turns": float(np.trunc(seen.turns.sum()) * scale),
        "landings": float(seen.landings.sum() * scale),
        "airborne": float(seen.airborne.mean()),
        "fallen": float(seen.fallen.mean()),
    }


def one_leg(qpos: Array) -> Figures:
    """What a cheetah did in one episode [T, 9]."""
    seen = OneLegJudge().watch(qpos)
    forward = seen.speed > 0
    return {
        "one_leg": float((seen.standing[1:] & forward).mean()),
        "front_up": float(((seen.lifted[1:] > 0) & forward).mean()),
        "speed": float(seen.speed.mean() / 0.05),  # metres per second: a step is 0.05 s
    }


@dataclass(frozen=True)
class Task:
    """One config, how to read an episode of it, and the figure that says which episode
    is best.
    """

    config: str
    read: Callable[[Array], Figures]
    best_by: str
    positions: int
    """How many numbers of the state are joint positions."""
    columns: Mapping[str, str]
    """Figure -> heading of its column."""


TASKS = {
    "backflip": Task(
        "hopper_backflip.yaml",
        backflips,
        "flips",
        6,
        {
            "flips": "flips per 1,000 steps",
            "landings": "upright landings per 1,000 steps",
            "turns": "backward turns, rolls included",
            "airborne": "in the air",
            "fallen": "fallen",
        },
    ),
    "one_leg": Task(
        "cheetah_one_leg.yaml",
        one_leg,
        "one_leg",
        9,
        {
            "one_leg": "forward, the hind leg alone on the floor",
            "front_up": "forward, the rest of the body up",
            "speed": "forward speed, m/s",
        },
    ),
}


def settings(task: str, arm: str, seed: int, *, runs_dir: str, quick: bool) -> RunConfig:
    """The config of one run."""
    sets = [
        f"seed={seed}",
        f"runs_dir={runs_dir}",
        f"name=novel-{task}-{arm}-{seed}",
        "tensorboard=false",
        "checkpoint.every_env_steps=null",
        "evaluation.episodes=2",
    ]
    if arm == "none":
        sets.append("labels.source=none")
    if quick:
        sets += [f"{key}={value}" for key, value in QUICK.items()]
    return loading.load(CONFIGS / TASKS[task].config, sets=sets)


def play(make_act: MakeAct, env: EnvConfig, *, episodes: int, seed: int) -> Array:
    """[episodes, T, S] simulator states before each action of whole, equally long
    episodes.
    """
    steps = probe(env).episode_limit
    vector: Any = make_vector_env(env, num_envs=episodes, vectorize="sync")
    try:
        vector.action_space.seed(seed)
        act = make_act(vector)
        obs, _ = vector.reset(seed=seed)
        states = []
        for _ in range(steps):
            states.append([sim_state(each) for each in vector.envs])
            obs, *_ = vector.step(act(np.asarray(obs)))
    finally:
        vector.close()
    return np.array(states).transpose(1, 0, 2)


def measure(task: str, arm: str, seed: int, *, quick: bool) -> None:
    """Train (unless by chance), play, and add the row; nothing where it is there for
    the present config.
    """
    with tempfile.TemporaryDirectory() as scratch:
        config = settings(task, arm, seed, runs_dir=scratch, quick=quick)
        key = {"task": task, "arm": arm, "seed": seed, "config_sha256": _hash(config, arm)}
        name = "novel-quick" if quick else "novel"
        if rows.done(name, key):
            return
        make_act, trained = (random_act, {}) if arm == "random" else _trained(config, task)
        states = play(
            make_act, config.env, episodes=2 if quick else EPISODES, seed=2_000_003 + seed
        )
    figures = [TASKS[task].read(episode[:, : TASKS[task].positions]) for episode in states]
    best = int(np.argmax([each[TASKS[task].best_by] for each in figures]))
    row = {**key, "episodes": len(figures), **_means(figures), "best": figures[best], **trained}
    if arm == "judge" and not quick:
        _keep(task, states[best], seed=seed, figure=figures[best][TASKS[task].best_by])
    rows.append(name, row)
    print(
        f"{task} {arm} {seed}: "
        + ", ".join(f"{key} {value:.2f}" for key, value in _means(figures).items())
    )


def clip(task: str) -> Path:
    """Where the states of the best episode of a task are: `state` [T, S], `env_id`,
    `seed`, `figure`.
    """
    return rows.RESULTS / f"novel-{task}.npz"


def section() -> str:
    """The tables, for the page of benchmarks."""
    found = rows.read("novel")
    lines = [
        "## Novel behavior",
        "",
        "    python -m benchmarks.novel",
        "",
        "No env reward describes these, and none was sent to anybody: a scripted judge answers "
        f"900 queries from the simulator states of the two segments. Means over {EPISODES} "
        "episodes with the most likely actions, each seed. Flips are whole turns of what an "
        "episode turned backward, in sum, while nothing but the foot touched the floor; whether "
        "it came down on its foot, upright, is the column beside it. Films of the best episodes: "
        "[backflip](images/backflip.webm), [one leg](images/one_leg.webm) (`python -m "
        "benchmarks.novel_clip`).",
        "",
    ]
    for task, what in TASKS.items():
        newest = {(row["arm"], row["seed"]): row for row in found if row["task"] == task}
        if not newest:
            continue
        headings = [
            "learned from",
            "seeds",
            "env steps",
            *what.columns.values(),
            "held-out accuracy",
        ]
        lines += [
            f"### {task.replace('_', ' ')}: `configs/{what.config}`",
            "",
            f"| {' | '.join(headings)} |",
        ]
        lines.append("|" + "---|" * len(headings))
        for arm in ARMS:
            own = [newest[key] for key in sorted(newest) if key[0] == arm]
            if own:
                lines.append(_line(arm, own, what.columns))
        lines.append("")
    return "\n".join([*lines, tables.made(found)])


def _line(arm: str, own: list[dict[str, Any]], columns: Mapping[str, str]) -> str:
    cells = [ARMS[arm], str(len(own)), f"{own[0].get('env_steps') or 0:,}"]
    cells += [", ".join(f"{row[column]:.2f}" for row in own) for column in columns]
    accuracy = [row["heldout_accuracy"] for row in own if row.get("heldout_accuracy") is not None]
    cells.append(", ".join(f"{value:.2f}" for value in accuracy) or "-")
    return f"| {' | '.join(cells)} |"


def _trained(config: RunConfig, task: str) -> tuple[MakeAct, dict[str, Any]]:
    rundir = RunDir.create(config, task)
    summary = program.train(rundir.config(), rundir=rundir, serial=True)
    if summary.interrupted:
        raise SystemExit(130)
    newest = Checkpoints(rundir.checkpoints, keep=config.checkpoint.keep).newest()
    assert newest is not None  # a run that finished leaves one
    env = make_env(config.env)
    env.close()  # type: ignore[no-untyped-call]
    spaces = probe(config.env).spaces
    make_act = algorithm_of(config).load_policy(
        Checkpoints.policy(newest),
        rundir.config(),
        spaces,
        action_space=env.action_space,
        explore=False,
        seed=config.seed,
    )
    last: dict[str, Any] = {}
    for row in read_metrics(rundir.metrics_file):
        last.update({name: value for name, value in row.items() if value is not None})
    figures = {
        "env_steps": summary.env_steps,
        "labels": summary.labels_answered,
        "tie_share": last.get("labels/ties", 0) / max(1, summary.labels_answered),
        "heldout_accuracy": last.get("reward/heldout_accuracy"),
        "predicted_return": last.get("predicted_return_mean"),
        "env_return": summary.true_return,
        "wall_seconds": summary.wall_seconds,
    }
    return make_act, figures


def _hash(config: RunConfig, arm: str) -> str:
    # chance knows the environment alone
    return config_hash(config, only="env" if arm == "random" else None)


def _means(figures: list[Figures]) -> Figures:
    return {name: float(np.mean([each[name] for each in figures])) for name in figures[0]}


def _keep(task: str, state: Array, *, seed: int, figure: float) -> None:
    """Keep these states unless better ones are there."""
    path = clip(task)
    if path.exists():
        with np.load(path) as kept:
            if float(kept["figure"]) >= figure:
                return
    env_id = loading.load(CONFIGS / TASKS[task].config).env.id
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, state=state, env_id=env_id, seed=seed, figure=figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=sorted(TASKS), action="append", help="default: both")
    parser.add_argument("--arm", choices=sorted(ARMS), action="append", help="default: all three")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0..N-1")
    parser.add_argument("--quick", action="store_true", help="tiny runs, rows of their own")
    given = parser.parse_args()
    for task in given.task or TASKS:
        for seed in range(1 if given.quick else given.seeds):
            for arm in given.arm or ARMS:
                measure(task, arm, seed, quick=given.quick)


if __name__ == "__main__":
    main()
