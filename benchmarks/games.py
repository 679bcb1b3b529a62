"""What collecting Atari costs beside the games themselves: one process, one thread for
each part, no learner.

    pip install opencv-python-headless  # for RLlib's wrappers; without it their arm is left out
    python -m benchmarks.games          # Pong, 8 games, five repeats, alone
    python -m benchmarks.games --quick  # one short repeat, printed and not stored

    games         ALE's vector environment with random actions drawn beforehand
    forward       the policy's forward pass on eight observations
    control       our env runner: the two of them, the score blanked, frames kept once
    preferences   the same with segments, predicted rewards and a reward ensemble of `cnn_small`
    stock         RLlib's env runner on games in RLlib's own wrappers, with its own network for
                  such pictures

Microseconds per env step (four frames of one game), by the wall and by the process's
CPU. The arms take turns within a repeat, in short turns, so that a slow moment of the
machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

from benchmarks.report import rows, tables
from benchmarks.rig import alone
from benchmarks.rig.turns import Sink, Turn, sampled, timed
from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.envs.atari import game_of
from rlhp.envs.make import make_env, probe
from rlhp.learn.ppo.rllib import algorithm_config
from rlhp.reward.fit import Fitter
from rlhp.reward.service import RewardModel
from rlhp.rollout.runner import ColumnarEnvRunner
from rlhp.system.ray import hush

ARMS = ("games", "forward", "control", "preferences", "stock")
ENVS = 8
STEPS, QUICK_STEPS = 512, 128
"""Env steps per turn, a multiple of ENVS."""
REPEATS = 5
TARGETS = {"control": 0.8, "stock": 3.0}
"""Steps per second of `control` over those of `games` and `forward` together, and over
`stock`'s.
"""


def config_of(arm: str) -> RunConfig:
    """Pong as configs/pong.yaml has it, sampled in this process."""
    sets = [
        f"labels.source={'oracle' if arm == 'preferences' else 'none'}", "reward.network=cnn_small",
        "name=games", "rollout.num_env_runners=0", f"rollout.num_envs_per_env_runner={ENVS}",
    ]  # fmt: skip
    return loading.load(alone.ROOT / "configs" / "pong.yaml", sets=sets)


def games() -> Turn:
    """ALE alone, with stacks of its own making."""
    from ale_py.vector_env import AtariVectorEnv

    game = game_of(config_of("games").env)
    assert game is not None
    envs = AtariVectorEnv(game, ENVS, num_threads=1, reward_clipping=False)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    actions = [envs.action_space.sample() for _ in range(256)]

    def turn(steps: int) -> int:
        for step in range(steps // ENVS):
            envs.step(actions[step % len(actions)])
        return steps

    return turn


def env_runner(arm: str) -> ColumnarEnvRunner:
    """Ours; with preferences, an untrained reward model and a sink that takes whatever
    it is offered.
    """
    config = config_of(arm)
    spaces = probe(config.env).spaces
    actions = make_env(config.env).action_space
    runner = ColumnarEnvRunner(
        config=algorithm_config(config, spaces, action_space=actions), worker_index=0
    )
    if config.preferences:
        fitter = Fitter(config.reward, spaces=spaces, seed=0)
        draws = np.random.default_rng(0)
        pictures = draws.integers(256, size=(100, *spaces.obs.row_shape)).astype(np.uint8)
        fitter.observe(pictures, draws.normal(size=(100, spaces.action.size)))
        weights = fitter.publish(1)
        runner.reward_source = RewardModel(spaces, newest=lambda: weights)
        runner.segment_sink = Sink()
    return runner


def forward(runner: ColumnarEnvRunner) -> Turn:
    """A turn of the policy's network alone on pictures of that kind, row by row, with the
    draw of actions.
    """
    pictures = torch.from_numpy(
        np.random.default_rng(0).integers(256, size=(ENVS, 4, 84, 84)).astype(np.uint8)
    )

    @torch.inference_mode()
    def turn(steps: int) -> int:
        for _ in range(steps // ENVS):
            out = runner.module._forward_exploration({Columns.OBS: pictures})
            draw = runner.module.get_exploration_action_dist_cls().from_logits(
                out[Columns.ACTION_DIST_INPUTS]
            )
            draw.sample().numpy()
        return steps

    return turn


def stock() -> Turn:
    """RLlib's env runner, its wrappers at the same size, stack and frame skip, its
    network for 84 x 84.
    """
    from ray.rllib.env.wrappers.atari_wrappers import wrap_atari_for_new_api_stack

    def make(_: Any) -> gym.Env[Any, Any]:
        env = gym.make("ale_py:ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
        wrapped: gym.Env[Any, Any] = wrap_atari_for_new_api_stack(env, dim=84, framestack=4)
        return wrapped

    register_env("stock-games", make)
    config = (
        PPOConfig()
        .environment("stock-games")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=ENVS)
    )
    return sampled(SingleAgentEnvRunner(config=config, worker_index=0))


def measure(repeat: int, *, steps: int) -> list[dict[str, Any]]:
    """One repeat of all arms in this process."""
    hush()
    torch.set_num_threads(1)
    control = env_runner("control")
    turns = {"games": games(), "forward": forward(control), "control": sampled(control)}
    turns["preferences"] = sampled(env_runner("preferences"))
    if find_spec("cv2") is not None:
        turns["stock"] = stock()
    return timed(turns, repeat=repeat, steps=steps)


def section() -> str:
    """Markdown for the page."""
    stored = rows.read("games")
    lines = [
        "## Sampling Atari",
        "",
        "    python -m benchmarks.games",
        "",
        f"Pong, {ENVS} games in one process, no learner; {len({row['repeat'] for row in stored})} "
        "repeats. `games` is ALE's vector environment with random actions, `forward` the "
        "policy's forward pass, `control` our env runner with both, `preferences` the same with "
        "segments and rewards predicted by `cnn_small`, `stock` RLlib's env runner on RLlib's "
        "own wrappers. An env step is four frames.",
        "",
        "| arm | us per env step, median (lowest to highest) | CPU us |",
        "|---|---|---|",
    ]
    for arm in ARMS:
        found = [row for row in stored if row["arm"] == arm]
        if found:
            wall, cpu = ([row[key] for row in found] for key in ("us_per_step", "cpu_us_per_step"))
            range_ = f"{min(wall):.0f} to {max(wall):.0f}"
            lines.append(
                f"| {arm} | {statistics.median(wall):.0f} ({range_}) | "
                f"{statistics.median(cpu):.0f} |"
            )
    lines += ["", *ratios(stored), "", tables.made(stored)]
    return "\n".join(lines)


def ratios(stored: list[dict[str, Any]]) -> list[str]:
    """Steps per second of `control` against the rest, with the targets."""
    of = {(row["arm"], row["repeat"]): row for row in stored}
    words = {"control": "the games and the forward pass alone", "stock": "RLlib's env runner"}
    lines = []
    for arm, target in TARGETS.items():
        others = ("games", "forward") if arm == "control" else (arm,)
        shares = {
            key: [
                sum(of[other, repeat][key] for other in others) / of["control", repeat][key]
                for repeat in sorted({row["repeat"] for row in stored})
                if all((other, repeat) in of for other in (*others, "control"))
            ]
            for key in ("us_per_step", "cpu_us_per_step")
        }
        if shares["us_per_step"]:
            times, by_cpu = (
                statistics.median(shares[key]) for key in ("us_per_step", "cpu_us_per_step")
            )
            verdict = "met" if times >= target else "missed"
            lines.append(
                f"- Steps per second of `control` over those of {words[arm]}: {times:.2f} by the "
                f"wall, {by_cpu:.2f} by CPU (target {target}: {verdict})."
            )
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument(
        "--quick", action="store_true", help="one short repeat, printed and not stored"
    )
    parser.add_argument("--run", type=int, metavar="REPEAT", help="one repeat, in this process")
    given = parser.parse_args()
    quick = ["--quick"] if given.quick else []
    if given.run is None:
        for repeat in range(1 if given.quick else given.repeats):
            if given.quick or not rows.done("games", {"repeat": repeat}):
                alone.run("benchmarks.games", "--run", str(repeat), *quick)
        return
    for row in measure(given.run, steps=QUICK_STEPS if given.quick else STEPS):
        print(json.dumps(row), flush=True)
        if not given.quick:
            rows.append("games", row)


if __name__ == "__main__":
    main()
