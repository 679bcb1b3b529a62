"""One run of imitation, or of SB3's PPO on the env reward, on a task of the unseen
suites; prints one JSON line.

    .bench/imitation/bin/python -m benchmarks.imitation_peer.unseen \\
        --system imitation --task reach --seed 0

Both systems run with their own defaults. Where imitation has none it gets what the
suite's table says (labels, segment length, env steps) and an exact teacher. Both have
eight environments and 2,048 env steps per update, which is PPO's default, and see their
spaces flattened.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FlattenObservation, TimeLimit
from imitation.algorithms import preference_comparisons as preferences
from imitation.data.wrappers import RolloutInfoWrapper
from imitation.rewards.reward_nets import BasicRewardNet
from imitation.util import logger as imitation_logger
from imitation.util.networks import RunningNorm
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks import unseen_tasks
from benchmarks.imitation_peer.train import StepCounter
from rlhp.envs.mujoco_tasks import EndlessEpisode, HiddenTermination, known_task, task_kwargs

ENVS, ROLLOUT_STEPS, EPISODES = 8, 2048, 30
ITERATIONS = 5
"""Rounds of queries: the default of imitation's training script."""


@dataclass(frozen=True)
class Task:
    """One row of the suites' tables, under Gymnasium 0.29's names."""

    env: str | Callable[[], gym.Env[Any, Any]]
    horizon: int
    env_steps: int
    labels: int
    segment: int
    hidden: bool = False
    penalty: float = 0.0
    kwargs: dict[str, Any] = field(default_factory=dict)


TASKS = {
    "pendulum": Task("Pendulum-v1", 200, 76_000, 200, 20),
    "cartpole": Task("CartPole-v1", 500, 100_000, 200, 75, hidden=True, penalty=10),
    "reach": Task(unseen_tasks.Reach, 60, 120_000, 300, 20),
    "reacher": Task("Reacher-v4", 50, 100_000, 700, 15, hidden=True),
    "inverted_double_pendulum": Task(
        "InvertedDoublePendulum-v4", 50, 100_000, 700, 15, hidden=True
    ),
    "pusher": Task("Pusher-v4", 100, 170_000, 700, 25),
    "halfcheetah": Task("HalfCheetah-v4", 300, 300_000, 700, 30, hidden=True),
    "hopper": Task("Hopper-v4", 300, 300_000, 700, 60, hidden=True),
    "lunarlander": Task("LunarLander-v2", 1000, 300_000, 700, 75, hidden=True),
    "swimmer": Task("Swimmer-v4", 300, 300_000, 700, 60, hidden=True),
    "walker2d": Task("Walker2d-v4", 300, 300_000, 700, 45, hidden=True),
    "ant": Task("Ant-v4", 300, 300_000, 700, 30, hidden=True),
    "bipedal_walker": Task("BipedalWalker-v3", 400, 300_000, 700, 50, hidden=True),
    "arm": Task(unseen_tasks.Arm, 60, 150_000, 300, 20),
    "tanks": Task(unseen_tasks.Tanks, 50, 120_000, 300, 15),
}


def make(task: Task) -> gym.Env[Any, Any]:
    """The environment that rlhp plays, built by rlhp's own wrappers."""
    known = known_task(task.env) if isinstance(task.env, str) and task.hidden else None
    if isinstance(task.env, str):
        kwargs = {**(task_kwargs(task.env) if known else {}), **task.kwargs}
        env: Any = gym.make(task.env, max_episode_steps=10**9, disable_env_checker=True, **kwargs)
    else:
        env = task.env()
    if known is not None:
        env = HiddenTermination(env, task=known)
    elif task.hidden:
        env = EndlessEpisode(env, termination_penalty=task.penalty)
    if not isinstance(env.observation_space, gym.spaces.Box):
        env = FlattenObservation(env)
    return RolloutInfoWrapper(Monitor(TimeLimit(env, max_episode_steps=task.horizon)))


def train(task: Task, *, system: str, seed: int, iterations: int = ITERATIONS) -> dict[str, Any]:
    """Train and evaluate; what the run took and what it reached."""
    venv = StepCounter(DummyVecEnv([partial(make, task)] * ENVS))
    venv.seed(seed)
    agent = PPO("MlpPolicy", venv, n_steps=ROLLOUT_STEPS // ENVS, seed=seed, device="cpu")
    started, labels = time.monotonic(), 0
    if system == "sb3":
        agent.learn(task.env_steps)
    else:
        algorithm = _comparisons(task, agent, venv, seed=seed, iterations=iterations)
        algorithm.train(total_timesteps=task.env_steps, total_comparisons=task.labels)
        labels = len(algorithm.dataset)
    seconds = time.monotonic() - started
    judge = DummyVecEnv([partial(make, task)])
    judge.seed(1_000_003 + seed)
    returns, _ = evaluate_policy(
        agent, judge, n_eval_episodes=EPISODES, deterministic=True, return_episode_rewards=True
    )
    return {
        "env_steps": venv.steps,
        "labels": labels,
        "training_seconds": seconds,
        "true_return": float(np.mean(returns)),
        "true_return_std_over_episodes": float(np.std(returns)),
        "episodes": len(returns),
    }


def _comparisons(task: Task, agent: PPO, venv: Any, *, seed: int, iterations: int) -> Any:
    rng = np.random.default_rng(seed)
    reward = BasicRewardNet(
        venv.observation_space, venv.action_space, normalize_input_layer=RunningNorm
    )
    return preferences.PreferenceComparisons(
        preferences.AgentTrainer(algorithm=agent, reward_fn=reward, venv=venv, rng=rng),
        reward,
        num_iterations=iterations,
        fragmenter=preferences.RandomFragmenter(warning_threshold=0, rng=rng),
        preference_gatherer=preferences.SyntheticGatherer(temperature=0, rng=rng),
        reward_trainer=preferences.BasicRewardTrainer(
            preference_model=preferences.PreferenceModel(reward),
            loss=preferences.CrossEntropyRewardLoss(),
            rng=rng,
        ),
        fragment_length=task.segment,
        # written nowhere, so that its time is spent on learning
        custom_logger=imitation_logger.configure(folder=tempfile.mkdtemp(), format_strs=[]),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--system", choices=["imitation", "sb3"], required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    given = parser.parse_args()
    print(
        json.dumps(
            train(
                TASKS[given.task], system=given.system, seed=given.seed, iterations=given.iterations
            )
        )
    )


if __name__ == "__main__":
    main()
