"""One run of imitation's PreferenceComparisons with SB3's PPO and an exact teacher;
prints one JSON line at the end.

.bench/imitation/bin/python -m benchmarks.imitation_peer.train --task pendulum --seed 0
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import Any

import numpy as np
from imitation.algorithms import preference_comparisons as preferences
from imitation.policies.base import FeedForward32Policy, NormalizeFeaturesExtractor
from imitation.rewards.reward_nets import BasicRewardNet
from imitation.util import logger as imitation_logger
from imitation.util.networks import RunningNorm
from imitation.util.util import make_vec_env
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from benchmarks.imitation_peer.settings import SETTINGS, Settings, quick


class StepCounter(VecEnvWrapper):
    """Counts what the environments really take, whoever steps them: PPO, sampling for
    queries, exploration.
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self.steps = 0

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        self.steps += self.num_envs
        return self.venv.step_wait()


def train(settings: Settings, *, seed: int, venv: VecEnv | None = None) -> dict[str, Any]:
    """Train and evaluate; what the run took and what it reached."""
    rng = np.random.default_rng(seed)
    counter = StepCounter(venv or make_vec_env(settings.env, rng=rng))
    agent, algorithm = _parts(settings, counter, rng=rng, seed=seed)
    started = time.monotonic()
    algorithm.train(
        total_timesteps=settings.total_timesteps, total_comparisons=settings.comparisons
    )
    training_seconds, training_ended = time.monotonic() - started, time.time()
    judge = make_vec_env(settings.env, rng=np.random.default_rng(1_000_003 + seed))
    returns, lengths = evaluate_policy(
        agent,
        judge,
        n_eval_episodes=settings.episodes,
        deterministic=True,
        return_episode_rewards=True,
    )
    return {
        "env_steps": counter.steps,
        "labels": len(algorithm.dataset),
        "training_seconds": training_seconds,
        "training_ended": training_ended,
        "true_return": float(np.mean(returns)),
        "true_return_std_over_episodes": float(np.std(returns)),
        "episodes": len(returns),
        "episode_length": float(np.mean(lengths)),
    }


def _parts(
    settings: Settings, venv: VecEnv, *, rng: np.random.Generator, seed: int
) -> tuple[PPO, preferences.PreferenceComparisons]:
    """As the tutorial puts them together."""
    reward_net = BasicRewardNet(
        venv.observation_space, venv.action_space, normalize_input_layer=RunningNorm
    )
    agent = PPO(
        policy=FeedForward32Policy,
        policy_kwargs={
            "features_extractor_class": NormalizeFeaturesExtractor,
            "features_extractor_kwargs": {"normalize_class": RunningNorm},
        },
        env=venv,
        seed=seed,
        n_steps=settings.rollout_steps // venv.num_envs,
        device="cpu",
        **settings.ppo,
    )
    algorithm = preferences.PreferenceComparisons(
        preferences.AgentTrainer(
            algorithm=agent,
            reward_fn=reward_net,
            venv=venv,
            exploration_frac=settings.exploration_frac,
            rng=rng,
        ),
        reward_net,
        num_iterations=settings.iterations,
        fragmenter=preferences.RandomFragmenter(warning_threshold=0, rng=rng),
        preference_gatherer=preferences.SyntheticGatherer(temperature=0, rng=rng),
        reward_trainer=preferences.BasicRewardTrainer(
            preference_model=preferences.PreferenceModel(reward_net),
            loss=preferences.CrossEntropyRewardLoss(),
            epochs=settings.reward_epochs,
            rng=rng,
        ),
        fragment_length=settings.fragment_length,
        transition_oversampling=1,
        initial_comparison_frac=0.1,
        initial_epoch_multiplier=settings.initial_epoch_multiplier,
        query_schedule="hyperbolic",
        # written nowhere, so that its time is spent on learning
        custom_logger=imitation_logger.configure(folder=tempfile.mkdtemp(), format_strs=[]),
    )
    return agent, algorithm


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=sorted(SETTINGS), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    settings = SETTINGS[arguments.task]
    print(json.dumps(train(quick(settings) if arguments.quick else settings, seed=arguments.seed)))


if __name__ == "__main__":
    main()
