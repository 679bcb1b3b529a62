"""What imitation is run with: its own published settings, and nothing that we tuned.

Pendulum is its tutorial on preference comparisons to the letter (PPO tuned there for
this task); only the teacher is exact instead of noisy. For HalfCheetah imitation
publishes PPO settings for 20 million steps only (`seals_half_cheetah`): with those this
short run reached 638 on seed 0 (428,288 steps), with the tutorial's more, so it gets
the tutorial's too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One task of `benchmarks.imitation_peer.train`."""

    env: str
    total_timesteps: int
    """Nominal: PPO rounds every iteration up to whole rollouts, and sampling for
    queries comes on top.
    """
    comparisons: int
    iterations: int
    fragment_length: int
    initial_epoch_multiplier: float
    ppo: dict[str, float]
    rollout_steps: int = 2048
    """Env steps per PPO update, over all environments."""
    reward_epochs: int = 3
    exploration_frac: float = 0.05
    episodes: int = 30
    """Of the evaluation, with the most likely actions."""


TUTORIAL_PPO = {
    "batch_size": 64,
    "ent_coef": 0.01,
    "learning_rate": 2e-3,
    "clip_range": 0.1,
    "gae_lambda": 0.95,
    "gamma": 0.97,
    "n_epochs": 10,
}

SETTINGS = {
    "pendulum": Settings(
        env="Pendulum-v1",
        total_timesteps=50_000,
        comparisons=200,
        iterations=5,
        fragment_length=100,
        initial_epoch_multiplier=4,
        ppo=TUTORIAL_PPO,
    ),
    "halfcheetah": Settings(
        env="HalfCheetah-v4",  # Gymnasium 0.29 has no v5; same simulation and rewards bit for bit
        total_timesteps=300_000,
        comparisons=700,
        iterations=10,
        fragment_length=50,
        initial_epoch_multiplier=4,
        ppo=TUTORIAL_PPO,
    ),
}


def quick(settings: Settings) -> Settings:
    """The same, too short to learn anything: to see that everything runs."""
    return replace(settings, total_timesteps=4_000, comparisons=20, iterations=2, episodes=2)


def fingerprint(settings: Settings) -> str:
    """Changes with every setting and every pinned version."""
    text = json.dumps(asdict(settings), sort_keys=True) + REQUIREMENTS.read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:16]
