"""What a run knows of the learner that it drives, whatever `learner.algorithm` is.

    learner = algorithm.build(config, spaces, action_space=space, begun=0)
    while no reward version:
        learner.warm_up(env_steps)     # collects; nothing is learned
    while env steps are left:
        report = learner.train()       # collects `turn_steps` or more, and learns from them
        checkpoints.save(learner, ...)

The loop, checkpoints, recovery, exact resumes, evaluation and videos know a learner by
`Learner` alone, and a kind of learner by `Algorithm` alone; `rlhp.learn.registry` says
which there are. A new one needs a class for each, a section of keys in
`rlhp.config.schema`, and a line in both tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym

from rlhp.config.schema import RunConfig
from rlhp.envs.spaces import Spaces
from rlhp.learn.evaluate import Act
from rlhp.reward.client import RewardSource
from rlhp.rollout.context import SegmentSink
from rlhp.system.roles import Episode

MakeAct = Callable[[Any], Act]
"""From a vector environment to a policy that acts in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one warm-up or one turn of training brought about."""

    env_steps: int
    """Those that were taken since the report before."""
    episodes: Sequence[Episode] = ()
    """Those that ended."""
    offered: int = 0
    """Segments that the query actor took, as far as the learner knows; told of a
    warm-up.
    """
    nodes: Sequence[str] | None = None
    """Ray nodes that env runners collected on; None where none said so."""
    failures: int = 0
    """How often the environment failed so far in the env runner where it failed most."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Numbers for a row, by the names of `rlhp.storage.metrics.METRICS`."""


class Learner(Protocol):
    """A policy, whoever acts with it, and whoever improves it.

    RayError or TimeoutError, raised by any of these, means that a process was lost: the
    run goes on with another learner from the last checkpoint. Any other error ends it.
    """

    @property
    def algorithm(self) -> str:
        """Its name in `rlhp.learn.registry`; checkpoints record it."""

    @property
    def turn_steps(self) -> int:
        """Env steps between two updates of the policy, about: one `train()`."""

    @property
    def num_envs(self) -> int:
        """Environments that are stepped side by side, over all env runners."""

    def train(self) -> Report:
        """Collect a turn of env steps and learn from it."""

    def warm_up(self, num_env_steps: int) -> Report:
        """Collect at least this many env steps with the policy as it is, and offer
        their segments; nothing is rewarded.
        """

    def policy(self, *, explore: bool, seed: int) -> MakeAct:
        """The present policy, as evaluations and videos play it; they move none of the
        learner's generators.
        """

    def policy_state(self) -> dict[str, Any]:
        """Plain data and arrays: what `Algorithm.load_policy` reads."""

    def get_state(self) -> dict[str, Any]:
        """Plain data and arrays: all that learning goes on from."""

    def restore(self, state: dict[str, Any]) -> None:
        """Set a fresh learner to what `get_state` said, whatever the number of env
        runners was then.
        """

    def connect(self, reward_source: RewardSource, segment_sink: SegmentSink) -> None:
        """Where the env runner inside this process has rewards from and offers segments
        to. Those in processes of their own find both by name.
        """

    def nodes(self) -> set[str]:
        """The Ray nodes on which env runners are."""

    def abandon(self) -> None:
        """Kill every actor of it, so that whoever waits for one fails or goes on at
        once. Safe from any thread, and twice.
        """

    def stop(self) -> None:
        """Release everything; the last call."""

    def rollout_state(self) -> dict[str, Any]:
        """Of a serial run: what acting goes on from, running episodes included, beside
        `get_state`. CannotRestore where that cannot be brought back.
        """

    def restore_environments(self, state: dict[str, Any]) -> None:
        """Bring the environments of a `rollout_state` back; CannotRestore where they
        come out elsewhere, and then they begin anew.
        """

    def restore_rollout(self, state: dict[str, Any]) -> None:
        """The rest of it, after `restore_environments` and `restore`."""


class Algorithm(Protocol):
    """A kind of learner: what a run asks before there is one, and of a saved one."""

    def check_spaces(self, config: RunConfig, spaces: Spaces) -> None:
        """RlhpError for an environment that this algorithm cannot act in."""

    def check_settings(self, config: RunConfig) -> None:
        """RlhpError for keys that this algorithm cannot run with; asked before anything
        starts, as the other.
        """

    def build(
        self, config: RunConfig, spaces: Spaces, *, action_space: gym.Space[Any], begun: int
    ) -> Learner:
        """The learner of this run, which was started or rebuilt `begun` times before:
        no two of these draw the same episodes.
        """

    def load_policy(
        self,
        state: Mapping[str, Any],
        config: RunConfig,
        spaces: Spaces,
        *,
        action_space: gym.Space[Any],
        explore: bool,
        seed: int,
    ) -> MakeAct:
        """A policy as `Learner.policy_state` described it."""
