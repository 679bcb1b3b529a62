"""Fits imitation's reward nets to stored pairs of segments; prints one JSON line and
writes predicted rewards.

    .bench/imitation/bin/python -m benchmarks.imitation_peer.fit DATA.npz OUT.npz \\
        --task '{"cells": ...}'

Nets, trainers, batch size and learning rate are imitation's own defaults; its error
rate is set to ours, since the answers are partly wrong. Fragments carry no env rewards,
which saves imitation the time to price them too.

Shapes: N pairs, H held-out pairs, K steps, O observation, A action; the axis of size 2
is first, second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from imitation.algorithms import preference_comparisons as preferences
from imitation.data.types import Trajectory
from imitation.rewards import reward_nets
from imitation.util import logger as imitation_logger
from imitation.util.networks import RunningNorm


def fit(
    data: dict[str, Any], *, system: str, pairs: int, flipped: float, task: dict[str, Any]
) -> tuple[Any, Any]:
    """Predicted rewards [H, 2, K] and the seconds that fitting took, of the clock and
    of the processor.
    """
    torch.manual_seed(task["seed"])
    np.random.seed(task["seed"])
    net = _net(data, members=task["members"] if system == "ensemble" else 1)
    trainer_of = (
        preferences.EnsembleTrainer if system == "ensemble" else preferences.BasicRewardTrainer
    )
    trainer = trainer_of(
        preferences.PreferenceModel(net, noise_prob=task["error_rate"]),
        loss=preferences.CrossEntropyRewardLoss(),
        rng=np.random.default_rng(task["seed"]),
        epochs=task["epochs"],
        custom_logger=imitation_logger.configure(folder=tempfile.mkdtemp(), format_strs=[]),
    )
    fragments = [tuple(_fragment(data, n, side) for side in (0, 1)) for n in range(pairs)]
    wrong = data["draw"][:pairs] < flipped
    target = np.where(wrong, 1 - data["target"][:pairs], data["target"][:pairs]).astype(np.float32)
    clock, processor = time.monotonic(), time.process_time()
    dataset = preferences.PreferenceDataset()
    dataset.push(fragments, target)
    trainer.train(dataset)
    seconds = {
        "fit_seconds": time.monotonic() - clock,
        "fit_cpu_seconds": time.process_time() - processor,
    }
    # output normalisers see what was fitted to
    _predict(net, data["obs"][:pairs], data["actions"][:pairs])
    return _predict(net, data["heldout_obs"], data["heldout_actions"]), seconds


def _net(data: dict[str, Any], *, members: int) -> reward_nets.RewardNet:
    """A basic net, or an ensemble as imitation's scripts configure one."""
    spaces = [
        gym.spaces.Box(-np.inf, np.inf, data[name].shape[3:], np.float32)
        for name in ("obs", "actions")
    ]
    nets = [
        reward_nets.BasicRewardNet(*spaces, normalize_input_layer=RunningNorm)
        for _ in range(members)
    ]
    if members == 1:
        return nets[0]
    return reward_nets.RewardEnsemble(
        *spaces, [reward_nets.NormalizedRewardNet(net, RunningNorm) for net in nets]
    )


def _fragment(data: dict[str, Any], pair: int, side: int) -> Trajectory:
    return Trajectory(
        obs=data["obs"][pair, side], acts=data["actions"][pair, side], infos=None, terminal=False
    )


def _predict(net: reward_nets.RewardNet, obs: Any, actions: Any) -> Any:
    """[N, 2, K+1, O] and [N, 2, K, A] -> rewards [N, 2, K]."""
    steps = actions.shape[:3]
    now, then = (part.reshape(-1, obs.shape[-1]) for part in (obs[:, :, :-1], obs[:, :, 1:]))
    acts = actions.reshape(-1, actions.shape[-1])
    return net.predict_processed(now, acts, then, np.zeros(len(now), bool)).reshape(steps)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument(
        "--task", type=json.loads, required=True, help="seed, epochs, members, error_rate, cells"
    )
    arguments = parser.parse_args()
    with np.load(arguments.data, allow_pickle=False) as file:
        data = dict(file)
    predicted, answers = {}, []
    # what torch does once
    fit(data, system="ensemble", pairs=2, flipped=0, task={**arguments.task, "epochs": 1})
    for number, (system, pairs, flipped) in enumerate(arguments.task["cells"]):
        predicted[str(number)], seconds = fit(
            data, system=system, pairs=pairs, flipped=flipped, task=arguments.task
        )
        answers.append(seconds)
    np.savez(arguments.out, allow_pickle=False, **predicted)
    print(json.dumps({"cells": answers}))


if __name__ == "__main__":
    main()
