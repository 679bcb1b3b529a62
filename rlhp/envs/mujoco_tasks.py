"""Episodes without an end: the MuJoCo tasks of Christiano et al. 2017, and a reset
unseen for the rest.

An early end tells the policy about the task even where the reward is hidden, so the
paper takes all variable-length episodes away (appendix A): a fall costs a bonus instead
of the episode, and torque, which nobody can see, costs nothing. The exact forms are
those of rl-teacher, written here in the terms of Gymnasium's v5 environments. None of
them shows a step counter or the time to the policy.

Words: z is a height in metres, `sim` the unwrapped environment after a step, `info`
what that step told.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

_log = logging.getLogger(__name__)

SEGMENT_SECONDS = 1.5
"""How long a segment plays (Christiano et al. 2017, appendix A)."""

EnvReward = Callable[[Any, Mapping[str, Any]], float]
_NO_END = {"terminate_when_unhealthy": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One MuJoCo task with the end of its episodes taken away."""

    name: str
    """Gymnasium's name without the version."""
    fps: int
    """Steps per second of playback for people; not 1/dt of the simulation."""
    limit: int
    """Steps per episode: every episode has exactly that many."""
    env_reward: EnvReward
    """(sim, info) -> env reward with the bonus that stands in for termination."""
    short_limit: int | None = None
    """Steps per episode of the short variant, where there is one."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Passed to the environment unless the user says otherwise."""
    kwargs_v5: Mapping[str, Any] = field(default_factory=dict)
    """The same, for arguments that v4 does not know."""

    @property
    def segment_length(self) -> int:
        """K: steps in one and a half seconds of playback."""
        return round(SEGMENT_SECONDS * self.fps)


def known_task(env_id: str) -> Task | None:
    """The paper's task behind a Gymnasium id (`Hopper-v5`, `Hopper-v4`), None for any
    other environment.
    """
    match = re.fullmatch(r"(\w+)-v[45]", env_id)
    return TASKS.get(match[1]) if match else None


def task_kwargs(env_id: str) -> dict[str, Any]:
    """What the task passes to this version of the environment; empty for an environment
    without a task.
    """
    task = known_task(env_id)
    if task is None:
        return {}
    return {**task.kwargs, **(task.kwargs_v5 if env_id.endswith("-v5") else {})}


class HiddenTermination(gym.Wrapper[Any, Any, Any, Any]):
    """The environment of a known task with the task's env reward and no end but the
    time limit around it.

    `info` is emptied, since Gymnasium's names the parts of the env reward. Where the
    simulation blows up (a state that is not finite, which MuJoCo answers by starting
    over) the episode is truncated: the step shows the last good observation, pays
    nothing, and `info["simulator_faults"]` counts them so far.
    """

    def __init__(self, env: gym.Env[Any, Any], *, task: Task) -> None:
        super().__init__(env)
        self.task = task
        self.faults = 0
        self._sim: Any = env.unwrapped
        self._last_obs: Any = None
        self._timestep = self._due_in = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment resets."""
        self._last_obs, _ = self.env.reset(seed=seed, options=options)
        # once per episode: MuJoCo's attributes are slow to read
        self._timestep = float(self._sim.model.opt.timestep)
        self._due_in = self._timestep * self._sim.frame_skip
        return self._last_obs, {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Never terminated; truncated only after a fault of the simulator."""
        data = self._sim.data
        due = data.time + self._due_in
        obs, _, _, _, info = self.env.step(action)
        env_reward = self.task.env_reward(self._sim, info)
        # MuJoCo resets a state that is not finite by itself; its clock then lags behind
        # by whole steps.
        lag = due - data.time
        # A sum of squares is finite where all its parts are, and takes a quarter of the
        # time of asking each.
        if lag > 0.5 * self._timestep or not math.isfinite(obs.dot(obs) + env_reward):
            return self._last_obs, 0.0, False, True, {"simulator_faults": self._count_fault()}
        self._last_obs = obs
        return obs, env_reward, False, False, {}

    def _count_fault(self) -> int:
        self.faults += 1
        if self.faults == 1:
            _log.warning(
                "the simulator of %s left the finite numbers: the episode is cut there. Smaller "
                "actions or a smaller learning rate usually keep it stable",
                self.task.name,
            )
        return self.faults


class EndlessEpisode(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that resets itself unseen whenever it ends (Christiano et al.
    2017, section A.2, for Atari).

    The step that ended it shows the first observation of the next game, is not
    terminated, costs `termination_penalty`, and says `info["hidden_reset"] = True`. An
    end by the environment's own truncation is hidden as well, without the penalty: only
    the time limit around this wrapper is an end.
    """

    def __init__(self, env: gym.Env[Any, Any], *, termination_penalty: float = 0.0) -> None:
        super().__init__(env)
        self._penalty = termination_penalty

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Never terminated, never truncated."""
        obs, env_reward, terminated, truncated, info = self.env.step(action)
        if not (terminated or truncated):
            return obs, env_reward, False, False, info
        obs, info = self.env.reset()
        return (
            obs,
            float(env_reward) - self._penalty * bool(terminated),
            False,
            False,
            {**info, "hidden_reset": True},
        )


def _forward(sim: Any, info: Mapping[str, Any]) -> float:
    """Reward for forward speed, under the name that this version of the environment
    gives it.
    """
    for name in ("reward_forward", "reward_run", "reward_fwd", "reward_linvel"):
        if name in info:
            return float(info[name])
    # Hopper-v4 and Walker2d-v4 name no part
    return float(info["x_velocity"] * sim._forward_reward_weight)


def _reacher(sim: Any, info: Mapping[str, Any]) -> float:
    # Measured here, since v4 names the distance before the step and v5 the one after
    # it.
    return -float(np.linalg.norm(sim.get_body_com("fingertip") - sim.get_body_com("target")))


def _inverted_pendulum(sim: Any, info: Mapping[str, Any]) -> float:
    return 1.0 - float(sim.data.qpos[1]) ** 2


def _inverted_double_pendulum(sim: Any, info: Mapping[str, Any]) -> float:
    tip_x, _, tip_z = sim.data.site_xpos[0]
    _, lower, upper = sim.data.qvel
    distance_penalty = 0.01 * tip_x**2 + (tip_z - 2) ** 2
    velocity_penalty = 1e-3 * lower**2 + 5e-3 * upper**2
    return float(10 - distance_penalty - velocity_penalty + 10 * (tip_z - 1))


def _ant(sim: Any, info: Mapping[str, Any]) -> float:
    return _forward(sim, info) + float(sim.data.qpos[2]) - 1.2


def _walker2d(sim: Any, info: Mapping[str, Any]) -> float:
    return _forward(sim, info) + float(sim.data.qpos[1]) - 1.0


def _hopper(sim: Any, info: Mapping[str, Any]) -> float:
    return _forward(sim, info) + float(sim.data.qpos[1])


def _humanoid(sim: Any, info: Mapping[str, Any]) -> float:
    return _forward(sim, info) + 5.0 * (float(sim.data.qpos[2]) - 1.0)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(name="Reacher", fps=10, limit=50, short_limit=20, env_reward=_reacher),
        Task(name="InvertedPendulum", fps=10, limit=25, env_reward=_inverted_pendulum),
        Task(name="InvertedDoublePendulum", fps=10, limit=50, env_reward=_inverted_double_pendulum),
        Task(name="HalfCheetah", fps=20, limit=1000, short_limit=300, env_reward=_forward),
        Task(
            name="Ant",
            fps=20,
            limit=1000,
            env_reward=_ant,
            kwargs=_NO_END,
            # 78 contact forces, nearly all zero, that the paper's Ant did not show.
            kwargs_v5={"include_cfrc_ext_in_observation": False},
        ),
        Task(
            name="Walker2d",
            fps=30,
            limit=1000,
            short_limit=300,
            env_reward=_walker2d,
            kwargs=_NO_END,
        ),
        Task(
            name="Hopper", fps=40, limit=1000, short_limit=300, env_reward=_hopper, kwargs=_NO_END
        ),
        Task(name="Swimmer", fps=40, limit=1000, env_reward=_forward),
        Task(
            name="Humanoid", fps=40, limit=1000, env_reward=_humanoid, kwargs=_NO_END
        ),  # rl-teacher's, not the paper's
    )
}
"""The tasks by name."""
