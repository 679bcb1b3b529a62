"""What collecting costs beside the environment itself: one process, one thread, no
learner.

    python -m benchmarks.sampling          # HalfCheetah, seven repeats, two minutes, alone
    python -m benchmarks.sampling --quick  # one short repeat, printed and not stored

    raw           gymnasium's own vector environment, with random actions drawn beforehand
    control       our env runner with the policy's forward pass, on the env reward
    preferences   the same with simulator states, predicted rewards and segments
    stock         RLlib's env runner with the same policy

Microseconds per env step, by the wall and by the process's CPU. The arms take turns
within a repeat, in short turns, so that a slow moment of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from benchmarks.report import rows, tables
from benchmarks.rig import alone
from benchmarks.rig.stock import stock_config
from benchmarks.rig.turns import Sink, Turn, sampled, timed
from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.envs.make import make_vector_env, probe
from rlhp.learn.ppo.rllib import algorithm_config
from rlhp.reward.fit import Fitter
from rlhp.reward.service import RewardModel
from rlhp.rollout.runner import ColumnarEnvRunner
from rlhp.system.ray import hush

ARMS = ("raw", "control", "preferences", "stock")
ENVS = 16
STEPS, QUICK_STEPS = 2048, 512
"""Env steps per turn, a multiple of ENVS."""
REPEATS = 7
TARGET = 1.4
"""Of `control` over `raw`."""


def config_of(arm: str) -> RunConfig:
    """HalfCheetah as the learning benchmarks have it, sampled in this process."""
    sets = [
        f"labels.source={'oracle' if arm == 'preferences' else 'none'}",
        "name=sampling", "rollout.num_env_runners=0", f"rollout.num_envs_per_env_runner={ENVS}",
    ]  # fmt: skip
    return loading.load(alone.ROOT / "configs" / "halfcheetah.yaml", sets=sets)


def raw() -> Turn:
    """Gymnasium alone."""
    environment = config_of("raw").env.id
    envs = gym.make_vec(environment, num_envs=ENVS, vectorization_mode="sync")
    envs.reset(seed=0)
    envs.action_space.seed(0)
    actions = [envs.action_space.sample() for _ in range(256)]

    def turn(steps: int) -> int:
        for step in range(steps // ENVS):
            envs.step(actions[step % len(actions)])
        return steps

    return turn


def ours(arm: str) -> Turn:
    """Our env runner; with preferences, an untrained reward model and a sink that takes
    whatever it is offered.
    """
    config = config_of(arm)
    spaces = probe(config.env).spaces
    envs = make_vector_env(config.env, num_envs=1, vectorize="sync")
    runner = ColumnarEnvRunner(
        config=algorithm_config(config, spaces, action_space=envs.single_action_space),
        worker_index=0,
    )
    envs.close()
    if config.preferences:
        fitter = Fitter(config.reward, spaces=spaces, seed=0)
        draws = np.random.default_rng(0)
        fitter.observe(
            draws.normal(size=(100, spaces.obs.size)), draws.normal(size=(100, spaces.action.size))
        )
        weights = fitter.publish(1)
        runner.reward_source = RewardModel(spaces, newest=lambda: weights)
        runner.segment_sink = Sink()
    return sampled(runner)


def stock() -> Turn:
    """RLlib's env runner."""
    runner = SingleAgentEnvRunner(config=stock_config(config_of("stock")), worker_index=0)
    return sampled(runner)


def measure(repeat: int, *, steps: int) -> list[dict[str, Any]]:
    """One repeat of all arms in this process."""
    hush()
    torch.set_num_threads(1)
    turns = {
        "control": ours("control"),
        "preferences": ours("preferences"),
        "stock": stock(),
        "raw": raw(),
    }
    return timed({arm: turns[arm] for arm in ARMS}, repeat=repeat, steps=steps)


def section() -> str:
    """Markdown for the page."""
    by = {(row["arm"], row["repeat"]): row for row in rows.read("sampling")}
    repeats = sorted({repeat for _, repeat in by})
    lines = [
        "## Sampling",
        "",
        "    python -m benchmarks.sampling",
        "",
        f"HalfCheetah-v5, {ENVS} environments in one process, one thread, no learner; "
        f"{len(repeats)} repeats. `raw` is gymnasium's vector environment with random actions, "
        "`control` our env runner with the policy's forward pass, `preferences` the same with "
        "simulator states, predicted rewards and segments, `stock` RLlib's env runner.",
        "",
        "| arm | us per env step, median (lowest to highest) | CPU us | times raw | target |",
        "|---|---|---|---|---|",
    ]
    for arm in ARMS:
        wall = [by[arm, repeat]["us_per_step"] for repeat in repeats]
        cpu = [by[arm, repeat]["cpu_us_per_step"] for repeat in repeats]
        times = statistics.median(
            by[arm, n]["us_per_step"] / by["raw", n]["us_per_step"] for n in repeats
        )
        verdict = (
            f"at most {TARGET}: {'met' if times <= TARGET else 'missed'}"
            if arm == "control"
            else ""
        )
        lines.append(
            f"| {arm} | {statistics.median(wall):.1f} ({min(wall):.1f} to {max(wall):.1f}) | "
            f"{statistics.median(cpu):.1f} | {times:.2f} | {verdict} |"
        )
    return "\n".join([*lines, "", tables.made(list(by.values()))])


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
            if given.quick or not rows.done("sampling", {"repeat": repeat}):
                alone.run("benchmarks.sampling", "--run", str(repeat), *quick)
        return
    for row in measure(given.run, steps=QUICK_STEPS if given.quick else STEPS):
        print(json.dumps(row), flush=True)
        if not given.quick:
            rows.append("sampling", row)


if __name__ == "__main__":
    main()
