"""What an env runner needs to know of its run: plain data inside the RLlib config.

A handle in there would break RLlib's checkpoints and not survive a runner's restart, so
the runner builds its edges itself, from names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rlhp.config.schema import EnvConfig, RunConfig
from rlhp.envs.spaces import Spaces
from rlhp.reward.client import Replicas, RewardSource
from rlhp.system.logs import start_log
from rlhp.system.ray import NAMESPACE
from rlhp.system.roles import ENV_RUNNER, QUERY_ACTOR, actor_name, numbered, spoken
from rlhp.types import Segment


class SegmentSink(Protocol):
    """Where segments worth asking about go. Returns how many were taken; it never
    blocks.
    """

    def offer(self, segments: list[Segment]) -> int: ...


@dataclass(frozen=True, slots=True)
class RunnerContext:
    """Everything of the run that a runner uses."""

    run: str
    env: EnvConfig
    vectorize: str
    preferences: bool
    segment_length: int
    segments_per_fragment: int
    share_env_reward: bool
    normalize_obs: bool
    """Never for pictures, which the network scales."""
    normalize_control_reward: bool
    center_control_reward: bool
    """Where no episode ends early: a shift of all rewards then changes nothing but what
    has to be learned.
    """
    target_std: float
    num_env_runners: int
    """How many are wanted; a run may start with fewer."""
    spaces: Spaces
    draws_clips: bool = False
    """Whether people will look at segments: see `rlhp.envs.states`."""
    log_file: Path | None = None
    """Where a runner in a process of its own logs; None: nowhere of ours."""
    resumed: int = 0
    """How often the run was started again: no episode of one start is named like one of
    another.
    """

    @staticmethod
    def of(
        config: RunConfig,
        spaces: Spaces,
        *,
        resumed: int = 0,
        normalize_obs: bool = False,
        normalize_control_reward: bool = False,
    ) -> RunnerContext:
        """The context of this run; what is normalized is the learner's to say."""
        assert config.name is not None
        vectorize = config.rollout.vectorize
        return RunnerContext(
            run=config.name,
            env=config.env,
            # clips are drawn from states, which only environments that are stepped one
            # by one tell
            vectorize="sync" if config.draws_clips and vectorize == "auto" else vectorize,
            preferences=config.preferences,
            segment_length=config.query.segment_length,
            segments_per_fragment=config.rollout.segments_per_fragment,
            share_env_reward=config.shares_env_reward,
            normalize_obs=normalize_obs,
            normalize_control_reward=normalize_control_reward,
            center_control_reward=config.env.hide_termination,
            target_std=config.reward.target_std,
            num_env_runners=config.rollout.num_env_runners,
            spaces=spaces,
            draws_clips=config.draws_clips,
            log_file=Path(config.runs_dir).absolute() / config.name / "run.log",
            resumed=resumed,
        )

    def start_log(self, worker: int) -> None:
        """Send what this process logs to the run's log, where that can be reached from
        here; 0 is the driver.
        """
        if worker and self.log_file is not None and self.log_file.parent.is_dir():
            start_log(self.log_file, run=self.run, who=numbered(ENV_RUNNER, worker))

    def reward_source(self, worker: int) -> RewardSource:
        """The named replicas: that of the worker's own node first, then a different
        favorite for each worker.
        """
        who = spoken(numbered(ENV_RUNNER, worker))
        return Replicas(self.run, favorite=worker, who=who)

    def segment_sink(self) -> SegmentSink:
        """The named query actor."""
        return RemoteSink(self.run)


class RemoteSink:
    """Offers segments to the query actor, with at most one offer on its way: what does
    not fit is dropped.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._pending: Any = None

    def offer(self, segments: list[Segment]) -> int:
        """Number taken: all, or none while the last offer is still on its way or nobody
        is there.
        """
        import ray
        from ray.exceptions import RayError

        try:
            if self._pending is not None and not ray.wait([self._pending], timeout=0)[0]:
                return 0
            actor = ray.get_actor(actor_name(self._run, QUERY_ACTOR), namespace=NAMESPACE)
            self._pending = actor.offer.remote(segments)
        # gone or restarting: segments are plentiful, answers are not
        except (RayError, ValueError):
            self._pending = None
            return 0
        return len(segments)
