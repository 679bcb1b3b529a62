"""What networks for pictures of 84 x 84 cost: the paper's reward ensemble, and the
policy.

    python -m benchmarks.pixel_speed                # on the CPU, one thread, five repeats
    python -m benchmarks.pixel_speed --device cuda  # on a GPU
    python -m benchmarks.pixel_speed --quick        # one short repeat, printed and not stored

label    pricing the stacks of eight games, three members, from raw arrays to rewards
fit      a gradient step of three members on 16 pairs of 25 steps each
act      a forward pass of the policy for eight games
update   a PPO-sized gradient step of the policy: 256 stacks, forward and backward

Each for `cnn`, the networks of the papers, and for the two smaller ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import gymnasium as gym
import numpy as np
import torch

from benchmarks.report import rows, tables
from rlhp.config.schema import Network, PPOLearnerConfig, RewardConfig
from rlhp.envs.spaces import Spaces, describe
from rlhp.learn.ppo.encoder import PictureEncoder, PictureEncoderConfig
from rlhp.reward.fit import Fitter
from rlhp.reward.service import RewardModel
from rlhp.types import Answer, Array, Preference, Segment

REPEATS = 5
GAMES, STACK, SIZE, ACTIONS, STEPS = 8, 4, 84, 6, 25
NETWORKS: tuple[Network, ...] = ("cnn", "cnn_small", "cnn_coarse")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for repeat in range(1 if given.quick else given.repeats):
        for network in NETWORKS:
            key = {"network": network, "device": _name(given.device), "repeat": repeat}
            if not given.quick and rows.done("pixel_speed", key):
                continue
            found = {**key, **measure(network, device=given.device, times=1 if given.quick else 5)}
            print(json.dumps(found), flush=True)
            if not given.quick:
                rows.append("pixel_speed", found)


def measure(network: Network, *, device: str, times: int, count: int = 1024) -> dict[str, float]:
    """All figures: of one thread's CPU time, or on a GPU on the wall with the device
    waited for.
    """
    spaces = describe(
        gym.spaces.Box(0, 255, (STACK, SIZE, SIZE), np.uint8), gym.spaces.Discrete(ACTIONS)
    )
    draws = np.random.default_rng(0)
    config = RewardConfig(
        network=network,
        hidden=(64,),
        dropout=0.5,
        use_action=False,
        batch_size=16,
        device=device,
        reservoir=256,
    )
    fitter = Fitter(config, spaces=spaces, seed=0)
    fitter.observe(_pictures(draws, 256), np.zeros((256, ACTIONS), np.float32))
    weights = fitter.publish(1)
    model = RewardModel(spaces, newest=lambda: weights, device=device)
    obs = _pictures(draws, count).reshape(GAMES, count // GAMES, STACK, SIZE, SIZE)
    actions = np.zeros(obs.shape[:2], np.int64)
    fitter.add([_preference(number, spaces) for number in range(24)])
    label = _median(partial(model.predict, obs, actions), device=device, times=times)
    fit = _median(partial(fitter.train, config.batch_size), device=device, times=times)
    act, update = _policy(network, draws, device=device, times=times)
    return {
        "label_us": 1e6 * label / count,
        "fit_ms": 1e3 * fit,
        "act_ms": 1e3 * act,
        "update_ms": 1e3 * update,
    }


def _policy(
    network: Network, draws: np.random.Generator, *, device: str, times: int
) -> tuple[float, float]:
    hidden = (512,) if network == "cnn" else PPOLearnerConfig().hidden
    encoder = PictureEncoder(
        PictureEncoderConfig(input_dims=(STACK, SIZE, SIZE), network=network, hidden=hidden)
    )
    policy = torch.nn.Sequential(
        encoder.pixels, encoder.net, torch.nn.Linear(hidden[-1], ACTIONS + 1)
    ).to(device)
    optimizer = torch.optim.Adam(policy.parameters())
    few, many = _pictures(draws, GAMES), _pictures(draws, 256)

    @torch.inference_mode()
    def act() -> Array:
        actions: Array = policy(torch.from_numpy(few).to(device)).cpu().numpy()
        return actions

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(policy(torch.from_numpy(many).to(device)).square().mean())
        optimizer.step()

    return _median(act, device=device, times=4 * times), _median(update, device=device, times=times)


def _median(call: Callable[[], object], *, device: str, times: int) -> float:
    """Seconds, after a first call that is not counted."""
    call()
    clock = time.process_time if device == "cpu" else time.perf_counter
    found = []
    for _ in range(times):
        began = clock()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(clock() - began)
    return statistics.median(found)


def _pictures(draws: np.random.Generator, count: int) -> Array:
    return draws.integers(0, 256, (count, STACK, SIZE, SIZE), dtype=np.uint8)


def _preference(number: int, spaces: Spaces) -> Preference:
    draws = np.random.default_rng(number)
    first, second = (_segment(f"{number}-{side}", draws) for side in ("first", "second"))
    return Preference(
        query=str(number), candidates=(first, second), answer=Answer.FIRST, labeler="bench"
    )


def _segment(name: str, draws: np.random.Generator) -> Segment:
    film = draws.integers(0, 256, (STEPS + STACK, SIZE, SIZE), dtype=np.uint8)
    return Segment(
        id=name,
        run="bench",
        env_runner=0,
        episode=name,
        start=0,
        obs={"": np.stack([film[step : step + STACK] for step in range(STEPS + 1)])},
        actions=np.zeros(STEPS, np.int64),
        env_reward=None,
        predicted_reward=None,
        reward_version=None,
        policy_version=0,
        env_steps=0,
        terminated=False,
        truncated=False,
    )


def _name(device: str) -> str:
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def section() -> str:
    """Markdown for the page."""
    found = rows.read("pixel_speed")
    lines = [
        "## Networks for pictures",
        "",
        "    python -m benchmarks.pixel_speed",
        "",
        f"Stacks of {STACK} gray frames of {SIZE} x {SIZE}. On a CPU: CPU time of one thread, so "
        "1,000,000 / the first column is what one core labels per second; on a GPU: time on the "
        "wall. Medians over repeats.",
        "",
        "| device | network | label, 3 members, us each | gradient step, 3 members x 16 pairs, "
        f"ms | policy, {GAMES} games, ms | policy step, 256 stacks, ms |",
        "|---|---|---|---|---|---|",
    ]
    for device in sorted({row["device"] for row in found}):
        for network in NETWORKS:
            some = [row for row in found if (row["device"], row["network"]) == (device, network)]
            if some:
                cells = [
                    f"{statistics.median(row[name] for row in some):,.1f}"
                    for name in ("label_us", "fit_ms", "act_ms", "update_ms")
                ]
                lines.append(f"| {device} | {network} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", tables.made(found)])


if __name__ == "__main__":
    main()
