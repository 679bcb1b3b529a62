"""The roles of a run: what each is called, and what each says of itself.

A role has one name. Ray finds its actor by it, the log and `actors.json` carry it, and
the metric of its memory is named after it; where people read, it has spaces.

A status is a record that crosses Ray as it is. What anybody decides by is a field of
it. Its metrics go into rows under their names, and nobody decides by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ENV_RUNNER = "env_runner"
LEARNER = "learner"
REWARD_MODEL = "reward_model"
QUERY_ACTOR = "query_actor"
REWARD_TRAINER = "reward_trainer"
CLIP_RENDERER = "clip_renderer"

Episode = tuple[float, float, int]
"""True return, predicted return (NaN where nobody predicted all of it), length."""


def numbered(role: str, index: int) -> str:
    """The name of one of several: `reward_model_0`."""
    return f"{role}_{index}"


def without_number(name: str) -> str:
    """The role of one of several: `reward_model_0` is a `reward_model`."""
    return name.rstrip("_0123456789")


def spoken(name: str) -> str:
    """The name as people read it: `reward model 0`."""
    return name.replace("_", " ")


def actor_name(run: str, name: str) -> str:
    """By which Ray finds the actor of a role, in the namespace `rlhp`."""
    return f"{run}:{name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleStatus:
    """What every role says of itself; None where it does not know or is no process."""

    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """By their names in `rlhp.storage.metrics.METRICS`."""
    alive: bool = True
    """False while it cannot be reached: the rest is what it said last."""
    fatal: str | None = None
    """The error that it stopped at for good."""
    ours: bool = False
    """Whether that error is a fault of this program."""
    waiting_for: str | None = None
    """The connection that it waits for."""
    beat: float | None = None
    """When its thread last came through a step, in unix seconds."""
    pid: int | None = None
    memory_mb: float | None = None
    run_path: str | None = None
    """The run directory that it works in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryActorStatus(RoleStatus):
    """What the query actor knows."""

    env_steps: int
    """How far the run was when the driver last said so; 0 after a restart."""
    pool: int
    """Candidate segments held."""
    offered: int
    """Segments offered so far."""
    warmup_target: int
    """Candidate segments that the warm-up collects."""
    allowed: int
    """Queries that the label schedule allows by now."""
    budget: int
    duplicates: int = 0
    """Queries that somebody had asked before."""
    refused: int = 0
    """How often Redis had no memory left for a query."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardTrainerStatus(RoleStatus):
    """What the reward trainer knows."""

    version: int
    """The newest published version; 0 before the first."""
    answered: int
    """Queries with an answer that counts."""
    published_steps: int = 0
    """Env steps of the run when that version was published."""
    fitted_steps: float | None = None
    """Env steps of the run whose fits are done; None before version 1."""
    fit_seconds: float = 0.0
    trainable: int = 0
    """Preferences that it trains on."""
    fresh_accuracy: float | None = None
    fresh_answers: int = 0
    """Decisive answers that the fresh accuracy is over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardModelStatus(RoleStatus):
    """What one replica of the reward model knows."""

    version: int
    """The newest version that it holds; 0 before the first."""
    calls: int = 0
    rounds: int = 0
    """How often it predicted, for one call or for several together."""
    transitions: int = 0
    us_per_transition: float = 0.0
