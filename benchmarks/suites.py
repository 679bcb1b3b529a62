"""What is measured: every learning run of every suite, named by task, arm and seed.

A suite is a table of the page. A task is a config file and the budget a suite gives it; an arm is what it changes
about the config. `lite` budgets fit two cores, `full` ones are those of the config files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rlhp import configfile
from rlhp.config import RunConfig

CONFIGS = Path(__file__).parent.parent / "configs"
EPISODES = 30
"""Of the final policy, with its most likely actions; as many of the random one."""
CONTROL = "control"
FULL_SEEDS = 10

Sets = tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One environment under one budget."""

    config: str
    seeds: int
    env_steps: int
    sets: Sets = ()


@dataclass(frozen=True)
class Suite:
    """Arms over tasks."""

    title: str
    tasks: dict[str, Task]
    arms: dict[str, Sets]
    borrowed: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Arm -> (suite, arm) that is the same run where that suite has the task: it is not measured twice."""
    serial: bool = True
    """One process per run, and the same numbers every time; False: the distributed program."""

    def measurements(self, name: str, *, full: bool = False) -> Iterator[Measurement]:
        """All of them, seed by seed, so that a bench that is stopped has whole seeds."""
        most = max(FULL_SEEDS if full else task.seeds for task in self.tasks.values())
        for seed in range(most):
            for task_name, task in self.tasks.items():
                if seed >= (FULL_SEEDS if full else task.seeds):
                    continue
                for arm in self.arms:
                    if self.lender(task_name, arm) is None:
                        yield Measurement(name, task_name, arm, seed, full=full)

    def lender(self, task: str, arm: str) -> tuple[str, str] | None:
        """Suite and arm of the rows that serve this one too; None where it is measured itself."""
        suite, lent = self.borrowed.get(arm, ("", ""))
        return (suite, lent) if suite and task in SUITES[suite].tasks else None


IN_STEP = ("reward.max_lag_steps=null",)
"""A serial run fits and answers in turn with learning: there is nothing to wait for."""
SHORT = ("env.max_episode_steps=300", *IN_STEP)
SMALL = {
    "reacher": Task("reacher.yaml", 5, 100_000, IN_STEP),
    "inverted_pendulum": Task("inverted_pendulum.yaml", 5, 100_000, IN_STEP),
    "inverted_double_pendulum": Task("inverted_double_pendulum.yaml", 5, 100_000, IN_STEP),
}
RUNNERS = {
    "halfcheetah": Task("halfcheetah.yaml", 10, 300_000, SHORT),
    "hopper": Task("hopper.yaml", 5, 300_000, SHORT),
}
MORE = {
    "walker2d": Task("walker2d.yaml", 3, 300_000, SHORT),
    "swimmer": Task("swimmer.yaml", 3, 300_000),
    "ant": Task("ant.yaml", 3, 300_000),
}
"""Of the paper too, where more cores are at hand."""

NONE: Sets = ("labels.source=none",)
SINGLE: Sets = ("reward.members=1", "query.selection=random", "reward.error_rate=0")
"""No ensemble, and answers taken at their word."""

SUITES: dict[str, Suite] = {
    "quick": Suite(
        "A first look, never kept",
        {"inverted_pendulum": Task("inverted_pendulum.yaml", 1, 40_000)},
        {CONTROL: NONE, "0": ("labels.budget=0",), "350": ("labels.budget=350",)},
    ),
    "headline": Suite(
        "The distributed program",
        {"pendulum": Task("pendulum.yaml", 5, 76_000), "halfcheetah": Task("halfcheetah.yaml", 3, 300_000)},
        {"preferences": (), CONTROL: NONE},
        serial=False,
    ),
    "mujoco": Suite(
        "MuJoCo tasks of Christiano et al. 2017",
        SMALL | RUNNERS,
        {CONTROL: NONE, **{str(count): (f"labels.budget={count}",) for count in (0, 350, 700, 1400)}},
    ),
    "mujoco-more": Suite(
        "The other MuJoCo tasks",
        MORE,
        {CONTROL: NONE, **{str(count): (f"labels.budget={count}",) for count in (350, 700, 1400)}},
    ),
    "pixels": Suite(
        "Pixels",
        {"moving_dot": Task("moving_dot.yaml", 5, 75_000)},
        {"preferences": (), CONTROL: NONE},
    ),
    "ablations": Suite(
        "Ablations",
        {"reacher": SMALL["reacher"], "halfcheetah": RUNNERS["halfcheetah"]},
        {
            CONTROL: NONE,
            "full method": (),
            "offline labels": ("labels.schedule=offline",),
            "random queries": ("query.selection=random",),
            "no ensemble": ("reward.members=1", "query.selection=random"),
            "no regularisation": ("reward.l2=0", "reward.l2_adaptive=false"),
            "single steps": ("query.segment_length=1",),
            "target": ("reward.loss=regression",),
            "centred anew": ("reward.center=recent",),
        },
        borrowed={CONTROL: ("mujoco", CONTROL), "full method": ("mujoco", "700")},
    ),
    "teachers": Suite(
        "Teachers",
        # Pendulum: the rows are older than its config's query.pool
        {"reacher": SMALL["reacher"], "pendulum": Task("pendulum.yaml", 5, 76_000, (*IN_STEP, "query.pool=1000"))},
        {
            "oracle": (),
            **{name: (f"labels.teacher.name={name}",) for name in ("mistake", "noisy", "skip", "myopic", "equal")},
            "20 % mistakes": ("labels.teacher.mistake=0.2",),
            "30 % mistakes": ("labels.teacher.mistake=0.3",),
            "30 % mistakes, early stop": ("labels.teacher.mistake=0.3", "reward.early_stop_epochs=20"),
            "single, oracle": SINGLE,
            "single, 30 % mistakes": (*SINGLE, "labels.teacher.mistake=0.3"),
            "single, 30 % mistakes, early stop": (
                *SINGLE, "labels.teacher.mistake=0.3", "reward.early_stop_epochs=20",
            ),
        },
        borrowed={"oracle": ("mujoco", "700")},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One run."""

    suite: str
    task: str
    arm: str
    seed: int
    full: bool = False

    @property
    def name(self) -> str:
        """A run name; part of what a serial run draws from, so it is the same every time."""
        words = f"{self.suite}-{self.task}-{self.arm}-{self.seed}"
        return "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in words)

    def config(self, *, runs_dir: str = "runs") -> RunConfig:
        """The whole config of the run."""
        suite = SUITES[self.suite]
        task = suite.tasks[self.task]
        budget = () if self.full else (f"learner.total_env_steps={task.env_steps}", *task.sets)
        sets = [
            *budget, *suite.arms[self.arm],
            f"seed={self.seed}", f"name={self.name}", f"runs_dir={runs_dir}", f"evaluation.episodes={EPISODES}",
            "checkpoint.every_env_steps=null", "tensorboard=false", "clips.policy_seconds=0",
        ]  # fmt: skip
        return configfile.load(CONFIGS / task.config, sets=sets)

    def key(self) -> dict[str, str | int]:
        """What tells its row from all others; the hash covers all that the config says beside the defaults."""
        return {"task": self.task, "arm": self.arm, "seed": self.seed, "config_sha256": config_hash(self.config())}


def config_hash(config: RunConfig, *, only: str | None = None) -> str:
    """Of all that a config (or `only` one section of it) says beside the defaults and that reaches what is learned.

    16 hex digits.
    """
    shown = {"seed", "name", "runs_dir", "clips", "page", "quality"}
    plain = config.model_dump(mode="json", exclude_defaults=True, exclude=shown)
    plain.get("labels", {}).pop("instruction", None)
    if only is not None:
        plain = {only: plain[only]}
    elif not config.preferences:  # nothing else of these sections reaches a control arm
        plain = {name: part for name, part in plain.items() if name not in ("labels", "query", "reward")}
        plain["target_std"] = config.reward.target_std
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
