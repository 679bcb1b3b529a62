"""A second learner, for the proof that a run knows its learner by `rlhp.learn.interface`
alone: REINFORCE with a linear policy, in numpy.

Each turn plays one whole episode in each of `ENVS` environments, so nothing is under
way between turns, and an exact resume needs its generator alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from pydantic import Field

from rlhp.config.schema import LearnerConfig, RunConfig
from rlhp.envs.make import make_vector_env
from rlhp.envs.spaces import Spaces
from rlhp.learn.interface import MakeAct, Report
from rlhp.reward.client import RewardSource
from rlhp.rollout.acting import executed_actions
from rlhp.rollout.context import SegmentSink
from rlhp.rollout.fragment import Fragment, pieces
from rlhp.rollout.segments import Origin, SegmentCutter
from rlhp.types import Array

ENVS, NOISE = 3, 0.3


class ReinforceConfig(LearnerConfig):
    """Keys of its own: one that PPO has too, and one that it has not."""

    algorithm: Literal["reinforce"] = "reinforce"
    lr: float = Field(default=0.1, gt=0, description="Step along the gradient.")
    baseline: bool = Field(default=True, description="Returns less their mean.")


class Reinforce:
    """An `rlhp.learn.interface.Learner`."""

    algorithm, num_envs = "reinforce", ENVS

    def __init__(self, config: RunConfig, spaces: Spaces, *, begun: int) -> None:
        assert isinstance(config.learner, ReinforceConfig)
        assert config.env.max_episode_steps is not None
        self._config, self._keys = config, config.learner
        self._rows = config.env.max_episode_steps
        self.turn_steps = ENVS * self._rows
        self._env: Any = make_vector_env(config.env, num_envs=ENVS, vectorize="sync")
        self._rng = np.random.default_rng([config.seed, begun])
        self._weights = np.zeros((spaces.obs.size, spaces.action.size))
        self._turns, self._learned = 0, 0
        self._cutter = SegmentCutter(
            spaces.obs, length=config.query.segment_length, share_env_reward=True, rng=self._rng
        )
        self._source: RewardSource | None = None
        self._sink: SegmentSink | None = None
        self.stopped = False

    def connect(self, reward_source: RewardSource, segment_sink: SegmentSink) -> None:
        self._source, self._sink = reward_source, segment_sink

    def warm_up(self, num_env_steps: int) -> Report:
        fragments = [self._collect() for _ in range(-(-num_env_steps // self.turn_steps))]
        return Report(
            env_steps=len(fragments) * self.turn_steps,
            offered=sum(self._offer(fragment, None, None) for fragment in fragments),
        )

    def train(self) -> Report:
        fragment = self._collect()
        rewards, version = fragment.env_reward, None
        if self._source is not None:
            rewards, version = self._source.predict(fragment.obs[:, :-1], fragment.executed)
        self._offer(fragment, rewards, version)
        gains = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]
        if self._keys.baseline:
            gains = gains - gains.mean(0)
        error = (fragment.sampled - fragment.dist_inputs) / NOISE**2
        gradient = np.einsum("nto,nta,nt->oa", fragment.policy_obs[:, :-1], error, gains)
        self._weights += self._keys.lr * gradient / self.turn_steps
        self._learned += 1
        true, predicted = fragment.env_reward.sum(1), rewards.sum(1)
        return Report(
            env_steps=self.turn_steps,
            episodes=[(float(true[n]), float(predicted[n]), self._rows) for n in range(ENVS)],
            metrics={"learner/policy_loss": float(-(error * gains[..., None]).mean())},
        )

    def policy(self, *, explore: bool, seed: int) -> MakeAct:
        return linear(self._weights.copy(), noise=NOISE if explore else 0.0, seed=seed)

    def policy_state(self) -> dict[str, Any]:
        return {"weights": self._weights}

    def get_state(self) -> dict[str, Any]:
        return {"weights": self._weights, "turns": self._turns, "learned": self._learned}

    def restore(self, state: dict[str, Any]) -> None:
        self._weights = np.array(state["weights"])
        self._turns, self._learned = state["turns"], state["learned"]

    def rollout_state(self) -> dict[str, Any]:
        return {"rng": self._rng.bit_generator.state}

    def restore_environments(self, state: dict[str, Any]) -> None:
        pass

    def restore_rollout(self, state: dict[str, Any]) -> None:
        self._rng.bit_generator.state = state["rng"]

    def nodes(self) -> set[str]:
        return set()

    def abandon(self) -> None:
        pass

    def stop(self) -> None:
        self._env.close()
        self.stopped = True

    def _collect(self) -> Fragment:
        """One episode in each environment."""
        self._turns += 1
        obs, _ = self._env.reset(seed=[int(seed) for seed in self._rng.integers(2**31, size=ENVS)])
        rows: dict[str, list[Array]] = {"obs": [np.array(obs)]}
        for _ in range(self._rows):
            mean = obs @ self._weights
            sampled = mean + NOISE * self._rng.normal(size=mean.shape)
            executed = executed_actions(sampled, self._env.single_action_space)
            obs, reward, terminated, truncated, _ = self._env.step(executed)
            row = {
                "obs": np.array(obs), "sampled": sampled, "executed": executed,
                "dist_inputs": mean, "logp": np.zeros(ENVS), "env_reward": np.float32(reward),
                "terminated": terminated, "truncated": truncated, "valid": np.ones(ENVS, bool),
            }  # fmt: skip
            for name, values in row.items():
                rows.setdefault(name, []).append(np.asarray(values))
        columns = {name: np.stack(values, axis=1) for name, values in rows.items()}
        return Fragment(**columns, policy_obs=columns["obs"])

    def _offer(self, fragment: Fragment, rewards: Array | None, version: int | None) -> int:
        if self._sink is None:
            return 0
        assert self._config.name is not None
        origin = Origin(
            run=self._config.name,
            env_runner=0,
            policy_version=self._learned,
            env_steps=self._turns * self.turn_steps,
            reward_version=version,
            state_kind="none",
        )
        segments = [
            segment
            for piece in pieces(fragment)
            for segment in self._cutter.follow(
                fragment,
                piece,
                predicted=rewards,
                episode=f"{self._turns}-{piece.env}",
                origin=origin,
            )
        ]
        return self._sink.offer(segments)


class ReinforceAlgorithm:
    """An `rlhp.learn.interface.Algorithm`."""

    def check_spaces(self, config: RunConfig, spaces: Spaces) -> None:
        pass

    def check_settings(self, config: RunConfig) -> None:
        pass

    def build(
        self, config: RunConfig, spaces: Spaces, *, action_space: gym.Space[Any], begun: int
    ) -> Reinforce:
        return Reinforce(config, spaces, begun=begun)

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
        return linear(np.array(state["weights"]), noise=NOISE if explore else 0.0, seed=seed)


def linear(weights: Array, *, noise: float, seed: int) -> MakeAct:
    """A linear policy, with noise where it explores."""
    rng = np.random.default_rng(seed)

    def make(vector: Any) -> Any:
        def act(obs: Array) -> Array:
            mean = obs @ weights
            drawn = mean + noise * rng.normal(size=mean.shape)
            return executed_actions(drawn, vector.single_action_space)

        return act

    return make
