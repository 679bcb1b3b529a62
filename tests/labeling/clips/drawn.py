"""An environment that can be drawn, which also crashes, hangs and fails on demand, and
segments of any environment.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlhp.config.schema import EnvConfig
from rlhp.envs.make import make_env
from rlhp.envs.spaces import describe
from rlhp.envs.states import sim_state, state_kind
from rlhp.types import Array, Segment

SIDE = 64
CRASH, HANG, FAIL, BLANK = 1001.0, 1002.0, 1003.0, 1004.0
"""Places at which drawing kills its process (once, where `marker` is given), never
ends, raises, or shows nothing.
"""


class Dot(gym.Env[Any, Any]):
    """A white dot on black that walks to the right; shows its place and the steps so
    far.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(self, *, render_mode: str | None = None, marker: str = "") -> None:
        self.observation_space = gym.spaces.Box(-2000, 2000, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.render_mode = render_mode
        self._marker = marker
        self.place, self.steps = 0.0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = float(self.np_random.integers(0, 20)), 0
        return self._show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place += 1 + float(np.asarray(action).reshape(-1)[0])
        self.steps += 1
        return self._show(), self.place, False, False, {}

    def rlhp_state(self) -> list[float]:
        return [self.place]

    def rlhp_set_state(self, state: Any) -> None:
        (self.place,) = (float(value) for value in state)

    def render(self) -> Any:
        print("an environment may print what it likes")
        if self.place == CRASH and not (self._marker and Path(self._marker).exists()):
            if self._marker:
                Path(self._marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.place == HANG:
            time.sleep(1000)
        if self.place == FAIL:
            raise RuntimeError("the brush broke")
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        if self.place != BLANK:
            left = int(self.place) % (SIDE - 8)
            picture[28:36, left : left + 8] = 255
        return picture

    def _show(self) -> Any:
        return np.array([self.place, self.steps], np.float32)


class Undrawable(Dot):
    """Can be put into a state, but has no picture of it."""

    metadata = {"render_modes": []}  # noqa: RUF012  # as Gymnasium declares it


class NoPicture(Undrawable):
    """Fails while it is being made for drawing."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(self, *, render_mode: str | None = None) -> None:
        if render_mode:
            raise RuntimeError("no paint left")
        super().__init__()


class Screen(gym.Env[Any, Any]):
    """Observes a picture of 40 x 48 pixels, gray, four of them in a stack."""

    observation_space = gym.spaces.Box(0, 255, (4, 40, 48), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._show(), 0.0, False, False, {}

    def _show(self) -> Any:
        return self.np_random.integers(0, 255, (4, 40, 48), np.uint8)


DOT = EnvConfig(id="tests.labeling.clips.drawn:Dot", max_episode_steps=50)


def dots(*places: float, name: str = "dots") -> Segment:
    """A segment of the dot at these places."""
    steps = len(places)
    return _segment(
        name,
        obs={"": np.zeros((steps + 1, 2), np.float32)},
        actions=np.zeros((steps, 1), np.float32),
        state=np.array(places, np.float64)[:, None],
        state_kind="hook",
    )


def played(
    config: EnvConfig, *, steps: int, seed: int = 0, name: str = "played"
) -> tuple[Segment, list[Array]]:
    """A segment of random actions, and what the environment itself drew before each of
    them (where it can).
    """
    env = make_env(
        config,
        render_mode="rgb_array" if config.id.endswith(("Dot", "-v1", "-v0", "-v3")) else None,
    )
    spec = describe(env.observation_space, env.action_space).obs
    env.action_space.seed(seed)
    obs, _ = env.reset(seed=seed)
    seen, actions, states, pictures = [spec.flatten_one(obs)], [], [], []
    for _ in range(steps):
        if env.render_mode == "rgb_array":
            pictures.append(np.asarray(env.render()))
        states.append(sim_state(env))
        action = env.action_space.sample()
        actions.append(np.asarray(action))
        obs, *_ = env.step(action)
        seen.append(spec.flatten_one(obs))
    env.close()  # type: ignore[no-untyped-call]
    kind = state_kind(env)
    state = None if kind == "none" else np.stack([np.asarray(each) for each in states])
    return _segment(
        name,
        obs=spec.unflatten(np.stack(seen)),
        actions=np.stack(actions),
        state=state,
        state_kind=kind,
    ), pictures


def _segment(name: str, **columns: Any) -> Segment:
    return Segment(
        id=name,
        run="test",
        env_runner=0,
        episode="e",
        start=0,
        env_reward=None,
        predicted_reward=None,
        reward_version=None,
        policy_version=0,
        env_steps=0,
        terminated=False,
        truncated=False,
        **columns,
    )
