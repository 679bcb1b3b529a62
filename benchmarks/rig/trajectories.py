"""Stored episodes of a random and of a half-trained policy, and the pairs of segments
that are cut from them.

    python -m benchmarks.rig.trajectories halfcheetah  # a file in .bench/trajectories: a minute

The half-trained policy learned on the env reward, serial program, seed 0. Its actions
are sampled, so that what it does varies. Training pairs and held-out pairs come from
different episodes.

Shapes: E episodes, T steps each, N pairs, K steps per segment; the axis of size 2 is
first, second.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhp import program
from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.envs.make import make_env, make_vector_env, probe
from rlhp.learn.checkpoint import Checkpoints
from rlhp.learn.evaluate import Act, random_act
from rlhp.learn.registry import algorithm_of
from rlhp.storage.rundir import RunDir
from rlhp.types import Array

ROOT = Path(__file__).parents[2]
STORE = ROOT / ".bench" / "trajectories"
HELD_OUT_SHARE = 1 / 3
HELD_OUT_PAIRS = 1000
MOST_PAIRS = 1400


@dataclass(frozen=True)
class Source:
    """Where the episodes of a task come from."""

    config: str
    sets: tuple[str, ...]
    env_steps: int
    """After so many the policy is half-trained."""
    episodes: int
    """Of each policy."""

    def load(self) -> RunConfig:
        """The config as this bench uses it."""
        return loading.load(ROOT / "configs" / self.config, sets=list(self.sets))


SOURCES = {
    "halfcheetah": Source("halfcheetah.yaml", ("env.max_episode_steps=300",), 60_000, 60),
    "reacher": Source("reacher.yaml", (), 30_000, 360),
}


def episodes(task: str) -> dict[str, Array]:
    """obs [E, T+1, O], actions [E, T, A], rewards [E, T]; made when missing."""
    path = STORE / f"{task}.npz"
    if not path.exists():
        _make(SOURCES[task], path)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def digest(task: str) -> str:
    """The digest of these episodes, 16 hex digits: episodes that other code or another
    machine made have another one.
    """
    whole = hashlib.sha256()
    for name, part in sorted(episodes(task).items()):
        whole.update(f"{name} {part.dtype} {part.shape}".encode())
        whole.update(part.tobytes())
    return whole.hexdigest()[:16]


def pairs(task: str, *, seed: int) -> dict[str, Array]:
    """N = 1,400 pairs to learn from, any first n of which are a smaller set, and 1,000
    held-out ones.

    obs [N, 2, K+1, O], actions [N, 2, K, A], rewards [N, 2, K], target [N] (P(first
    preferred) of an exact teacher) and draw [N], uniform: the answers with draw < share
    are the wrong ones. `heldout_` before all but the last.
    """
    whole, rng = episodes(task), np.random.default_rng([seed, 29])
    count, length = len(whole["rewards"]), SOURCES[task].load().query.segment_length
    held_out = np.zeros(count, bool)
    held_out[np.random.default_rng(29).permutation(count)[: round(HELD_OUT_SHARE * count)]] = True
    train = _cut(whole, np.flatnonzero(~held_out), number=MOST_PAIRS, length=length, rng=rng)
    judge = _cut(whole, np.flatnonzero(held_out), number=HELD_OUT_PAIRS, length=length, rng=rng)
    return {
        **train,
        "draw": rng.random(MOST_PAIRS),
        **{f"heldout_{name}": part for name, part in judge.items()},
    }


def _cut(
    whole: dict[str, Array], among: Array, *, number: int, length: int, rng: np.random.Generator
) -> dict[str, Array]:
    """`number` pairs of segments, from any two of these episodes, each from any step."""
    steps = whole["rewards"].shape[1]
    one, further = rng.integers(len(among), size=number), rng.integers(1, len(among), size=number)
    episode = among[np.stack([one, (one + further) % len(among)], 1)[..., None]]
    first = rng.integers(0, steps - length + 1, size=(number, 2, 1))
    window = first + np.arange(length + 1)
    rewards = whole["rewards"][episode, window[..., :-1]]
    returns = rewards.sum(-1, dtype=np.float64)
    return {
        "obs": whole["obs"][episode, window],
        "actions": whole["actions"][episode, window[..., :-1]],
        "rewards": rewards,
        "target": ((np.sign(returns[:, 0] - returns[:, 1]) + 1) / 2).astype(np.float32),
    }


def _make(source: Source, path: Path) -> None:
    config = source.load()
    with tempfile.TemporaryDirectory() as scratch:
        changes = (
            "labels.source=none",
            f"learner.total_env_steps={source.env_steps}",
            f"runs_dir={scratch}",
            "evaluation.episodes=2",
            "tensorboard=false",
        )
        run = loading.load(ROOT / "configs" / source.config, sets=[*source.sets, *changes])
        rundir = RunDir.create(run, "half-trained")
        program.train(rundir.config(), rundir=rundir, serial=True)
        newest = Checkpoints(rundir.checkpoints, keep=1).newest()
        assert newest is not None
        spaces, env = probe(config.env).spaces, make_env(config.env)
        make_act = algorithm_of(config).load_policy(
            Checkpoints.policy(newest),
            rundir.config(),
            spaces,
            action_space=env.action_space,
            explore=True,
            seed=0,
        )
        env.close()  # type: ignore[no-untyped-call]
    played = [
        _play(config, act, count=source.episodes, seed=seed)
        for seed, act in enumerate((random_act, make_act))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part.npz")
    both = {name: np.concatenate([part[name] for part in played]) for name in played[0]}
    np.savez(aside, allow_pickle=False, **both)
    aside.rename(path)


def _play(
    config: RunConfig, make_act: Callable[[Any], Act], *, count: int, seed: int
) -> dict[str, Array]:
    """One episode in each of `count` environments, all equally long."""
    vector: Any = make_vector_env(config.env, num_envs=count, vectorize="sync")
    vector.action_space.seed(seed)
    act = make_act(vector)
    obs, _ = vector.reset(seed=[1000 * seed + number for number in range(count)])
    seen, done, rows = [obs], np.zeros(count, bool), []
    while not done.any():
        actions = act(np.asarray(obs))
        obs, reward, terminated, truncated, _ = vector.step(actions)
        done = terminated | truncated
        seen.append(obs)
        rows.append((actions, reward))
    vector.close()
    if not done.all():
        raise ValueError(
            f"episodes of {config.env.id} are not equally long; set env.hide_termination = true"
        )
    actions, rewards = (
        np.stack(column, 1).astype(np.float32) for column in zip(*rows, strict=True)
    )
    return {"obs": np.stack(seen, 1).astype(np.float32), "actions": actions, "rewards": rewards}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=sorted(SOURCES))
    task = parser.parse_args().task
    returns = episodes(task)["rewards"].sum(1)
    chance, half_trained = np.split(returns, 2)
    print(
        f"{task}: returns of the random policy {chance.mean():.1f}, of the half-trained one "
        f"{half_trained.mean():.1f}"
    )


if __name__ == "__main__":
    main()
