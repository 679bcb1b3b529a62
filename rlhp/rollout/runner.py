"""The env runner: steps N environments as columns, has the fragment's rewards
predicted, then makes episodes of it.

RLlib's own runner spends half of its time on per-environment Python; this one works on
whole rows, and is the one place that has raw observations, executed actions, simulator
state and unbroken history at once.

    collect T rows -> predict (a reward model; never the env reward) -> offer segments
    -> episodes for the learner

Three ways to use it: `sample` (RLlib's), `warm_up` (before reward version 1: nothing is
predicted, nothing is learned), and, in the control arm, `sample` with the env reward.

RLlib's own state of a runner is weights, statistics and a counter: what it restores
begins its episodes anew. Where the environments can be brought back
(`rlhp.rollout.episode_replay`), `runner_state` is the rest of a local one as it stands
between two fragments, running episodes included.

Shapes: N environments, T rows, O flat observation, A action.
"""

from __future__ import annotations

import logging
import time
from typing import Any, NoReturn

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlhp.envs.atari import AtariGames
from rlhp.envs.guard import EnvFailed, Failures, Stopped
from rlhp.envs.make import make_vector_env, needs_pictures
from rlhp.envs.spaces import describe
from rlhp.envs.states import has_pictures, states_of
from rlhp.frames import FrameColumn
from rlhp.reward.client import RewardSource
from rlhp.rollout.acting import as_seen, drawing, executed_actions
from rlhp.rollout.context import RunnerContext, SegmentSink
from rlhp.rollout.episode_replay import CannotRestore, EpisodeReplay
from rlhp.rollout.fragment import Fragment, build_episode, pieces
from rlhp.rollout.normalization import RunningMoments
from rlhp.rollout.segments import Origin, SegmentCutter
from rlhp.system.memory import resident_mb
from rlhp.types import Array, Segment

log = logging.getLogger(__name__)

SPARE_ROWS = 16
"""Room in a fragment of pictures for rows that are resets, before its memory is taken
anew.
"""
EPISODES = "rlhp_episodes"
"""Metric key: one (true return, predicted return, length) per finished episode; NaN for
a return nobody predicted.
"""
NODES = "rlhp_nodes"
"""Metric key: the Ray node of each runner that collected a fragment."""


class ColumnarEnvRunner(SingleAgentEnvRunner):  # type: ignore[misc]  # RLlib is untyped
    """`config.rlhp` is the `RunnerContext`; in a serial program the edges are set as
    attributes.
    """

    reward_source: RewardSource | None = None
    segment_sink: SegmentSink | None = None
    env: Any
    num_envs: int

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        self._context: RunnerContext = config.rlhp
        self._failures = Failures()
        self._stopped: Stopped | None = None
        self._context.start_log(kwargs.get("worker_index") or 0)
        try:
            super().__init__(config=config, **kwargs)
        except EnvFailed as error:
            if not kwargs.get("worker_index"):
                raise
            # An actor that fails while it is built is built again, for ever and without
            # a word: this one says why.
            self._stopped = Stopped.by(error)
            return
        if self._context.preferences and self.worker_index and config.num_env_runners > 0:
            self.connect()
        incarnation = time.time_ns()
        self._rng = np.random.default_rng([self._seed or 0, self.worker_index or 0])
        if self.worker_index and ray.get_runtime_context().was_current_actor_reconstructed:
            log.warning(
                "the process of env runner %d ended, and this one goes on in its place. Where "
                "that comes again, the environment ends or crashes its process: logs/worker-*.err "
                "of Ray's session has its last words",
                self.worker_index,
            )
            # With the seeds it began with it would play its first episodes again,
            # action for action.
            self._rng = np.random.default_rng(
                [self._seed or 0, self.worker_index or 0, incarnation]
            )
            torch.manual_seed(int(self._rng.integers(2**63)))
        self._cutter = SegmentCutter(
            self._context.spaces.obs,
            length=self._context.segment_length,
            share_env_reward=self._context.share_env_reward,
            rng=self._rng,
        )
        self._moments: RunningMoments = self._env_to_module[RunningMoments][0]
        self._obs: Array = np.zeros(0)
        self._was_done: Array = np.zeros(0, bool)
        self._episode_number = np.zeros(self.num_envs, np.int64)
        self._episode_start = np.zeros(self.num_envs, np.int64)
        self._true_return = np.zeros(self.num_envs)
        self._predicted_return = np.zeros(self.num_envs)
        self._incarnation = (
            f"{incarnation:x}" if config.num_env_runners > 0 else f"serial{self._context.resumed}"
        )
        self._offered, self._dropped = 0, 0
        self._rows: int | None = None

    def connect(self) -> None:
        """Have rewards from the reward models and offer segments to the query actor,
        all of them Ray actors.
        """
        self.reward_source = self._context.reward_source(self.worker_index or 0)
        self.segment_sink = self._context.segment_sink()

    def make_env(self) -> None:
        """Our own vector environment, reset anew; made again where that fails, as often
        as `RETRIES` allows.
        """
        while True:
            try:
                self._make_env()
                return
            except EnvFailed as error:
                self._failures.count(error)

    def _make_env(self) -> None:
        if self.env is not None:
            self.env.close()
        context = self._context
        vectorize: Any = context.vectorize
        pictures = context.draws_clips and needs_pictures(context.env)
        count = self.config.num_envs_per_env_runner
        who = f"env runner {self.worker_index}" if self.worker_index else "env runner"
        self.env = make_vector_env(
            context.env, num_envs=count, vectorize=vectorize, pictures=pictures, who=who
        )
        self.num_envs = self.env.num_envs
        shown = describe(self.env.single_observation_space, self.env.single_action_space).obs
        if shown.row_shape != context.spaces.obs.row_shape:
            raise EnvFailed(
                f"env.id={context.env.id!r}: its observations are rows of {shown.row_shape} here, "
                f"and were of {context.spaces.obs.row_shape} when it was tried before the start"
            )
        self._needs_initial_reset = True
        self._tape = EpisodeReplay(self.env, on=self.config.num_env_runners == 0)
        found = (
            states_of(self.env, draws_clips=context.draws_clips)
            if context.preferences
            else ("none", None)
        )
        self._state_kind, self._read_states = found

    def apply(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """As RLlib's, which ends this actor after any error and tells nobody. Here a
        lost neighbor does so; any other error would come again, and is kept for whoever
        asks with `ping`.
        """
        self.ping()
        try:
            return func(self, *args, **kwargs)
        except Exception as error:
            log.exception("env runner %s stopped", self.worker_index)
            if isinstance(error, RayError) and not isinstance(error, RayTaskError):
                return super().apply(_again, error)
            self._stopped = Stopped.by(error)
            raise self._stopped.error() from error

    def ping(self) -> str:
        """That it is there; raises what has stopped it."""
        if self._stopped is not None:
            raise self._stopped.error()
        return "pong"

    def assert_healthy(self) -> None:
        """Raises what stopped it while it was built."""
        self.ping()

    def warm_up(self, num_timesteps: int) -> dict[str, Any]:
        """Collect at least this many steps and offer their segments; nobody labels or
        learns from them.
        """
        before = self._offered
        fragment = self._collected(num_timesteps, explore=True)
        self._finish(fragment, rewards=None, version=None, learn=False)
        return {
            "steps": fragment.steps,
            "offered": self._offered - before,
            "metrics": self.get_metrics(),
        }

    def collect_rows(self, rows: int) -> None:
        """Rows of a fragment from now on: this runner's share of a batch, when runners
        came or went.
        """
        self._rows = rows

    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[SingleAgentEpisode]:
        if num_timesteps is None or random_actions or force_reset:
            raise ValueError(
                "this env runner collects fragments of env steps; whole episodes, random actions "
                "and forced resets are not sampled here (evaluation has its own loop, see "
                "rlhp.learn.evaluate)"
            )
        num_timesteps = num_timesteps if self._rows is None else self._rows * self.num_envs
        if self.config.num_env_runners == 0:
            self._moments.fold()  # a single runner merges with itself
        fragment = self._collected(num_timesteps, explore=explore)
        self.metrics.log_value("memory_mb", resident_mb(), reduce="max", window=1)
        if not self._context.preferences:
            return self._finish(
                fragment, rewards=self._control_reward(fragment), version=None, learn=True
            )
        assert self.reward_source is not None, (
            "a preference run needs a reward model before it samples"
        )
        started = time.perf_counter()
        rewards, version = self.reward_source.predict(fragment.obs[:, :-1], fragment.executed)
        waited = time.perf_counter() - started
        predicted = rewards[fragment.valid]
        said = {
            "predict_wait_ms": 1e3 * waited,
            "predict_us_per_step": 1e6 * waited / fragment.steps,
        }
        said |= {"predicted_mean": float(predicted.mean()), "predicted_std": float(predicted.std())}
        for name, value in said.items():
            self.metrics.log_value(name, value, window=20)
        self.metrics.log_value("reward_version", float(version), reduce="min", window=1)
        return self._finish(fragment, rewards=rewards, version=version, learn=True)

    def _control_reward(self, fragment: Fragment) -> Array:
        if not self._context.normalize_control_reward:
            return fragment.env_reward
        self._moments.observe("reward", fragment.env_reward[fragment.valid][:, None])
        standard = self._moments.standardize(
            fragment.env_reward, center=self._context.center_control_reward
        )
        return (standard * self._context.target_std).astype(np.float32)

    def _collected(self, num_timesteps: int, *, explore: bool) -> Fragment:
        """A fragment, with environments made anew where one of them failed: what was
        unfinished is not counted.
        """
        while True:
            try:
                fragment = self._collect(num_timesteps, explore=explore)
            except EnvFailed as error:
                self._failures.count(error)
                self.make_env()
                self._episode_number += 1
                self._episode_start[:] = 0
                self._true_return[:] = self._predicted_return[:] = 0.0
            else:
                self._failures.passed(fragment.steps)
                if self._failures.total:
                    self.metrics.log_value(
                        "env_failures", float(self._failures.total), reduce="max", window=1
                    )
                return fragment

    def _collect(self, num_timesteps: int, *, explore: bool) -> Fragment:
        """Whole rows until `num_timesteps` real steps were taken: one short, and RLlib
        samples a round more.
        """
        if self._needs_initial_reset:
            self._reset()
        self.module.eval()
        draw = drawing(self.module, count=self.num_envs, explore=explore)
        rows: dict[str, list[Array]] = {}
        pictures = None
        if self._context.spaces.obs.picture is not None:
            pictures = FrameColumn(self._obs, room=num_timesteps // self.num_envs + SPARE_ROWS)
        steps = 0
        while steps < num_timesteps:
            policy_obs = self._see(self._obs)
            dist_inputs, sampled = (drawn.numpy() for drawn in draw(torch.from_numpy(policy_obs)))
            executed = executed_actions(sampled, self.env.single_action_space)
            row = {
                "dist_inputs": dist_inputs,
                "sampled": sampled,
                "executed": executed,
                "valid": ~self._was_done,
            }
            if pictures is None:
                row |= {"obs": self._obs, "policy_obs": policy_obs}
            if self._read_states is not None:
                row["state"] = self._read_states()
            obs, reward, terminated, truncated, info = self.env.step(executed)
            steps += int(row["valid"].sum())
            reward = np.asarray(reward, np.float32)
            row["env_reward"] = np.where(row["valid"], reward, np.float32("nan"))
            if isinstance(self.env, AtariGames):
                row["score"] = info["score"]
                for score in info["game_score"][np.isfinite(info["game_score"])]:
                    self.metrics.log_value("game_score_mean", float(score), window=100)
            # The row after an episode's end is its reset: whatever it reports as done
            # belongs to no step.
            row["terminated"] = terminated & row["valid"]
            row["truncated"] = truncated & row["valid"]
            for name, values in row.items():
                rows.setdefault(name, []).append(np.asarray(values))
            self._was_done = row["terminated"] | row["truncated"]
            self._tape.record(executed, self._was_done)
            # some give columns, and a product of matrices rounds by layout
            self._obs = np.array(obs, order="C")
            if pictures is not None:
                pictures.add(self._obs)
        if pictures is None:
            rows["obs"].append(self._obs)
            rows["policy_obs"].append(self._see(self._obs))
        columns = {name: np.stack(values, axis=1) for name, values in rows.items()}
        if pictures is not None:
            columns["obs"] = columns["policy_obs"] = pictures.stacks()
        columns["logp"] = self._logp(columns["dist_inputs"], columns["sampled"], explore=explore)
        fragment = Fragment(**columns)
        if self._context.normalize_obs:
            self._moments.observe("obs", fragment.obs[:, :-1][fragment.valid])
        return fragment

    def _reset(self) -> None:
        seeds = [int(s) for s in self._rng.integers(2**31 - 1, size=self.num_envs)]
        self._obs = np.array(self.env.reset(seed=seeds)[0], order="C")
        self._tape.begin(seeds)
        self._was_done = np.zeros(self.num_envs, bool)
        self._needs_initial_reset = False

    def _see(self, obs: Array) -> Array:
        return self._moments.normalize(obs) if self._context.normalize_obs else as_seen(obs)

    @torch.inference_mode()
    def _logp(self, dist_inputs: Array, sampled: Array, *, explore: bool) -> Array:
        """Log-probabilities [N, T] of the draws, all at once: row by row is slow. Zero
        for most likely actions.
        """
        rows = dist_inputs.shape[:2]
        if not explore:
            return np.zeros(rows, np.float32)
        dist_class = self.module.get_exploration_action_dist_cls()
        dist = dist_class.from_logits(torch.from_numpy(dist_inputs).flatten(0, 1))
        logp: Array = dist.logp(torch.from_numpy(sampled).flatten(0, 1)).numpy().reshape(rows)
        return logp

    def _finish(
        self, fragment: Fragment, *, rewards: Array | None, version: int | None, learn: bool
    ) -> list[SingleAgentEpisode]:
        """Account for returns, offer segments and, when learning, build episodes."""
        predicted = rewards if self._context.preferences else None
        episodes: list[SingleAgentEpisode] = []
        segments: list[Segment] = []
        origin = Origin(
            run=self._context.run,
            env_runner=self.worker_index or 0,
            policy_version=int(self._weights_seq_no),
            env_steps=int(self.num_env_steps_sampled_lifetime),
            reward_version=version,
            state_kind=self._state_kind,
        )
        finished = 0
        for piece in pieces(fragment):
            env, rows = piece.env, slice(piece.first, piece.stop)
            name = f"{self._incarnation}-{self.worker_index or 0}-{env}-{self._episode_number[env]}"
            if learn:
                assert rewards is not None
                started = int(self._episode_start[env])
                episodes.append(
                    build_episode(
                        fragment, piece, rewards=rewards, episode_id=name, t_started=started
                    )
                )
            if self._context.preferences:
                segments += self._cutter.follow(
                    fragment, piece, predicted=predicted, episode=name, origin=origin
                )
            self._episode_start[env] += piece.stop - piece.first
            paid = fragment.env_reward if fragment.score is None else fragment.score
            self._true_return[env] += float(paid[env, rows].sum(dtype=np.float64))
            # NaN from the warm-up on: an episode that was predicted in part has no
            # predicted return.
            reward = np.nan if predicted is None else predicted[env, rows].sum(dtype=np.float64)
            self._predicted_return[env] += float(reward)
            if piece.done:
                finished += 1
                self._end_episode(env)
        # of the other environments nothing was kept that could be shown
        if self._state_kind == "picture":
            segments = [segment for segment in segments if has_pictures(segment)]
        self._offer(segments, everything=not learn)
        if self.worker_index:
            self.metrics.log_value(
                NODES, ray.get_runtime_context().get_node_id(), reduce="item_series", window=1
            )
        self._increase_sampled_metrics(fragment.steps, finished)
        return episodes

    def _end_episode(self, env: int) -> None:
        length = int(self._episode_start[env])
        true, predicted = float(self._true_return[env]), float(self._predicted_return[env])
        self._log_episode_metrics(length, true, 0.0)
        self.metrics.log_value(
            EPISODES, (true, predicted, length), reduce="item_series", window=1000
        )
        self._episode_number[env] += 1
        self._episode_start[env] = 0
        self._true_return[env] = self._predicted_return[env] = 0.0

    def _offer(self, segments: list[Segment], *, everything: bool) -> None:
        if not segments or self.segment_sink is None:
            return
        limit = len(segments) if everything else self._context.segments_per_fragment
        offered = segments
        if len(segments) > limit:
            chosen = np.sort(self._rng.choice(len(segments), size=limit, replace=False))
            offered = [segments[k] for k in chosen]
        taken = self.segment_sink.offer(offered)
        self._offered += taken
        self._dropped += len(segments) - taken
        for name, value in (
            ("offered", self._offered),
            ("dropped", self._dropped),
            ("short", self._cutter.short),
        ):
            self.metrics.log_value(f"segments_{name}", float(value), reduce="max", window=1)

    def get_metrics(self) -> Any:
        """RLlib's, without the episode objects: returns were summed while stepping."""
        return self.metrics.reduce()


def _again(_: Any, error: Exception) -> NoReturn:
    raise error


_PER_ENVIRONMENT = (
    "_obs",
    "_was_done",
    "_episode_number",
    "_episode_start",
    "_true_return",
    "_predicted_return",
)
_PLAIN = ("_incarnation", "_offered", "_dropped")


def runner_state(runner: ColumnarEnvRunner) -> dict[str, Any]:
    """Plain data; CannotRestore where the environments are of a kind that cannot be
    brought back.
    """
    if runner._state_kind == "replay":
        raise CannotRestore("games are not brought back")
    state: dict[str, Any] = {name: getattr(runner, name) for name in _PLAIN}
    state["rng"] = runner._rng.bit_generator.state
    state["metrics"] = runner.metrics.get_state()
    state["begun"] = not runner._needs_initial_reset
    if state["begun"]:
        state["tape"] = runner._tape.state()
        state["cutter"] = runner._cutter.state()
        state |= {name: np.array(getattr(runner, name)) for name in _PER_ENVIRONMENT}
    return state


def restore_environments(runner: ColumnarEnvRunner, state: dict[str, Any]) -> None:
    """Bring its environments back; CannotRestore where they come out elsewhere, and
    then they are reset anew.
    """
    if not state["begun"]:
        return
    if len(state["_obs"]) != runner.num_envs:
        raise CannotRestore(
            f"{len(state['_obs'])} environments were saved, there are {runner.num_envs} now"
        )
    try:
        runner._tape.restore(
            state["tape"], obs=state["_obs"], done=state["_was_done"], returns=state["_true_return"]
        )
    except CannotRestore:
        runner._needs_initial_reset = True
        raise


def restore_runner(runner: ColumnarEnvRunner, state: dict[str, Any]) -> None:
    """Everything else, after `restore_environments` and after RLlib's own state."""
    for name in _PLAIN:
        setattr(runner, name, state[name])
    runner._rng.bit_generator.state = state["rng"]
    runner.metrics.set_state(state["metrics"])
    runner._needs_initial_reset = not state["begun"]
    if state["begun"]:
        runner._cutter.set_state(state["cutter"])
        for name in _PER_ENVIRONMENT:
            setattr(runner, name, np.array(state[name]))
