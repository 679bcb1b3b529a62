"""What is measured: every learning run of every suite, named by task, arm and seed.

A suite is a table of the page. A task is a config file and the budget a suite gives it;
an arm is what it changes about the config. `lite` budgets fit two cores, `full` ones
are those of the config files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rlhp.config import loading
from rlhp.config.schema import RunConfig

CONFIGS = Path(__file__).parents[2] / "configs"
EPISODES = 30
"""Of the final policy, with its most likely actions; as many of the random one."""
CONTROL = "control"
DEFAULTS = 2
"""Counts the sets of defaults that were measured: raise it where one changes that
reaches what is learned.
"""
FULL_SEEDS = 10

Sets = tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One environment under one budget."""

    config: str
    seeds: int
    env_steps: int
    sets: Sets = ()


def horizon(steps: int) -> str:
    """The change that ends episodes after so many steps."""
    return f"env.max_episode_steps={steps}"


def unseen(
    env: str, *, steps: int, labels: int, segment: int, sets: Sets = (), seeds: int = 5
) -> Task:
    """A task that no file in configs/ knows: nothing is set but the environment, the
    budgets and K.
    """
    own = (f"env.id={env}", f"labels.budget={labels}", f"query.segment_length={segment}", *sets)
    return Task("../benchmarks/unseen.yaml", seeds, steps, own)


HIDDEN = "env.hide_termination=true"
LUNAR_LANDER = Task("lunarlander.yaml", 5, 300_000)

UNSEEN_DEV = {
    "pendulum": unseen("Pendulum-v1", steps=76_000, labels=200, segment=20),
    "cartpole": Task("cartpole.yaml", 5, 100_000),
    "reach": unseen(
        "benchmarks.unseen_tasks:Reach", steps=120_000, labels=300, segment=20, sets=(horizon(60),)
    ),
    "reacher": unseen("Reacher-v5", steps=100_000, labels=700, segment=15, sets=(HIDDEN,)),
    "inverted_double_pendulum": unseen(
        "InvertedDoublePendulum-v5", steps=100_000, labels=700, segment=15, sets=(HIDDEN,)
    ),
    "pusher": unseen("Pusher-v5", steps=170_000, labels=700, segment=25),
    "halfcheetah": unseen(
        "HalfCheetah-v5", steps=300_000, labels=700, segment=30, sets=(HIDDEN, horizon(300))
    ),
    "hopper": unseen(
        "Hopper-v5", steps=300_000, labels=700, segment=60, sets=(HIDDEN, horizon(300))
    ),
    "lunarlander": LUNAR_LANDER,
}
"""On which defaults are chosen."""

UNSEEN_TEST = {
    "swimmer": unseen(
        "Swimmer-v5", steps=300_000, labels=700, segment=60, sets=(HIDDEN, horizon(300))
    ),
    "walker2d": unseen(
        "Walker2d-v5", steps=300_000, labels=700, segment=45, sets=(HIDDEN, horizon(300))
    ),
    "ant": unseen("Ant-v5", steps=300_000, labels=700, segment=30, sets=(HIDDEN, horizon(300))),
    "bipedal_walker": unseen(
        "BipedalWalker-v3", steps=300_000, labels=700, segment=50, sets=(HIDDEN, horizon(400))
    ),
    "arm": unseen(
        "benchmarks.unseen_tasks:Arm", steps=150_000, labels=300, segment=20, sets=(horizon(60),)
    ),
    "tanks": unseen(
        "benchmarks.unseen_tasks:Tanks", steps=120_000, labels=300, segment=15, sets=(horizon(50),)
    ),
}
"""On which they are tried once, after the freeze."""

FLAT = {
    "mountain_car": unseen(
        "MountainCarContinuous-v0", steps=50_000, labels=200, segment=50, seeds=2
    ),
    "acrobot": unseen("Acrobot-v1", steps=50_000, labels=200, segment=50, seeds=2),
}
"""Where nearly all answers are ties: the alarm has to say so."""


@dataclass(frozen=True)
class Suite:
    """Arms over tasks."""

    title: str
    tasks: dict[str, Task]
    arms: dict[str, Sets]
    borrowed: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Arm -> (suite, arm) that is the same run where that suite has the task: it is not
    measured twice.
    """
    serial: bool = True
    """One process per run, and the same numbers every time; False: the distributed
    program.
    """
    beside: dict[str, int] = field(default_factory=dict)
    """Arm -> busy processes that run beside it."""

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
        """Suite and arm of the rows that serve this one too; None where it is measured
        itself.
        """
        suite, lent = self.borrowed.get(arm, ("", ""))
        return (suite, lent) if suite and task in SUITES[suite].tasks else None


SHORT = (horizon(300),)
SMALL = {
    "reacher": Task("reacher.yaml", 5, 100_000),
    "inverted_pendulum": Task("inverted_pendulum.yaml", 5, 100_000),
    "inverted_double_pendulum": Task("inverted_double_pendulum.yaml", 5, 100_000),
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

PAPER: Sets = (
    "labels.initial_share=0.25",
    "query.newest=1000",
    "query.random_share=0",
    "reward.members=3",
    "reward.activation=leaky_relu",
    "reward.use_action=true",
    "reward.error_rate=0.1",
    "reward.l2=1e-4",
    "reward.l2_adaptive=true",
    "reward.target_std=1",
    "reward.center=recent",
    "reward.lr=3e-4",
    "reward.batch_size=64",
    "reward.pretrain_epochs=200",
    "reward.label_uses_per_step=0.1",
    "reward.publish_every_steps=10000",
)
"""configs/paper.yaml, of which a test makes sure."""
NONE: Sets = ("labels.source=none",)
SINGLE: Sets = ("reward.members=1", "query.selection=random")
"""No ensemble, and nothing chosen."""

SUITES: dict[str, Suite] = {
    "quick": Suite(
        "A first look, never kept",
        {"inverted_pendulum": Task("inverted_pendulum.yaml", 1, 40_000)},
        {CONTROL: NONE, "0": ("labels.budget=0",), "350": ("labels.budget=350",)},
    ),
    "headline": Suite(
        "The distributed program",
        {
            "pendulum": Task("pendulum.yaml", 5, 76_000),
            "halfcheetah": Task("halfcheetah.yaml", 3, 300_000),
        },
        {"preferences": (), CONTROL: NONE},
        serial=False,
    ),
    "unseen-dev": Suite(
        "Defaults alone: development tasks", UNSEEN_DEV, {"preferences": (), CONTROL: NONE}
    ),
    "unseen-test": Suite(
        "Defaults alone: test tasks", UNSEEN_TEST, {"preferences": (), CONTROL: NONE}
    ),
    "unseen-flat": Suite("Rewards that are the same nearly everywhere", FLAT, {"preferences": ()}),
    "pacing": Suite(
        "Serial and distributed, idle and busy",
        {task: replace(UNSEEN_DEV[task], seeds=3) for task in ("reach", "reacher", "halfcheetah")},
        {"distributed": (), "beside two busy processes": ()},
        borrowed={"serial": ("unseen-dev", "preferences"), CONTROL: ("unseen-dev", CONTROL)},
        serial=False,
        beside={"beside two busy processes": 2},
    ),
    "mujoco": Suite(
        "MuJoCo tasks of Christiano et al. 2017",
        SMALL | RUNNERS,
        {
            CONTROL: NONE,
            **{str(count): (f"labels.budget={count}",) for count in (0, 350, 700, 1400)},
        },
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
            "no regularization": ("reward.l2=0", "reward.l2_adaptive=false"),
            "single steps": ("query.segment_length=1",),
            "target": ("reward.loss=regression",),
            "centered anew": ("reward.center=recent",),
            "actions always seen": ("reward.use_action=true",),
            "the paper's numbers": PAPER,
        },
        borrowed={CONTROL: ("mujoco", CONTROL), "full method": ("mujoco", "700")},
    ),
    "teachers": Suite(
        "Teachers",
        {
            **{
                task: replace(UNSEEN_DEV[task], seeds=3)
                for task in ("reacher", "pendulum", "reach", "halfcheetah")
            },
        },
        {
            "oracle": (),
            "10 % mistakes": ("labels.teacher.mistake=0.1",),
            "20 % mistakes": ("labels.teacher.mistake=0.2",),
            "30 % mistakes": ("labels.teacher.mistake=0.3",),
            **{
                name: (f"labels.teacher.name={name}",)
                for name in ("noisy", "myopic", "skip", "equal")
            },
            "single, 30 % mistakes": (*SINGLE, "labels.teacher.mistake=0.3"),
        },
        borrowed={"oracle": ("unseen-dev", "preferences")},
    ),
}


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
        """A run name; part of what a serial run draws from, so it is the same every
        time.
        """
        words = f"{self.suite}-{self.task}-{self.arm}-{self.seed}"
        return "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in words)

    def config(self, *, runs_dir: str = "runs") -> RunConfig:
        """The whole config of the run."""
        suite = SUITES[self.suite]
        task = suite.tasks[self.task]
        budget = () if self.full else (f"learner.total_env_steps={task.env_steps}", *task.sets)
        sets = [
            *budget,
            *suite.arms[self.arm],
            f"seed={self.seed}",
            f"name={self.name}",
            f"runs_dir={runs_dir}",
            f"evaluation.episodes={EPISODES}",
            "checkpoint.every_env_steps=null",
            "tensorboard=false",
            "clips.policy_seconds=0",
        ]
        return loading.load(CONFIGS / task.config, sets=sets)

    def key(self) -> dict[str, str | int]:
        """What tells its row from all others; the hash covers all that the config says
        beside the defaults.
        """
        return {
            "task": self.task,
            "arm": self.arm,
            "seed": self.seed,
            "config_sha256": config_hash(self.config()),
        }


def config_hash(config: RunConfig, *, only: str | None = None) -> str:
    """The digest, 16 hex digits, of all that a config (or `only` one section of it) says
    beside the defaults and that reaches what is learned.
    """
    shown = {"seed", "name", "runs_dir", "clips", "page", "quality"}
    plain = config.model_dump(mode="json", exclude_defaults=True, exclude=shown)
    plain.get("labels", {}).pop("instruction", None)
    plain["defaults"] = DEFAULTS
    if only is not None:
        plain = {only: plain[only]}
    elif not config.preferences:  # nothing else of these sections reaches a control arm
        plain = {
            name: part for name, part in plain.items() if name not in ("labels", "query", "reward")
        }
        plain["target_std"] = config.reward.target_std
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
