"""A segment to frames, by the first of these ways that its environment allows:

    its own render, from the states of segments (`rlhp_set_state`, LunarLander) or from what was
    observed
    MuJoCo, drawn from qpos and qvel: see `rlhp.labeling.clips.mujoco`
    an Atari game played again, in the colors and the size of the console: see
    `rlhp.envs.atari_replay`
    the observation, where that is a picture
    a small picture that the env runner kept with every step: see `rlhp.envs.states`

An environment of your own is drawn exactly, and at no cost to the rollouts, when it has
two methods more than Gymnasium asks for:

    def rlhp_state(self):  # everything that is needed to draw it, as a list of numbers
        return [*self.place, self.angle]

    def rlhp_set_state(self, state):     # the inverse; render() follows
        *self.place, self.angle = state

Gymnasium's small worlds draw themselves too, once they are put into the state that
their observation tells.

Shapes: K steps, H x W pixels.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from PIL import Image

from rlhp.config.schema import ClipsConfig, EnvConfig
from rlhp.envs import guard
from rlhp.envs.atari import blanks
from rlhp.envs.atari_replay import replay
from rlhp.envs.guard import Unfit, blamed
from rlhp.envs.make import make_env, playback_fps
from rlhp.envs.states import CannotDraw, Way, open_picture, put_lander, way_to_draw
from rlhp.errors import RlhpError
from rlhp.labeling.clips import gl
from rlhp.types import Array, Segment

Put = Callable[[Any, Array, Array | None], None]
"""Put the unwrapped environment into what was observed, [*O], after the action before
it (None at the start).
"""


def _cart_pole(inner: Any, seen: Array, _: Array | None) -> None:
    inner.state = tuple(float(value) for value in seen)


def _pendulum(inner: Any, seen: Array, action: Array | None) -> None:
    inner.state = np.array([np.arctan2(seen[1], seen[0]), seen[2]])
    # The arrow that shows the torque.
    inner.last_u = (
        None if action is None else float(np.clip(action[0], -inner.max_torque, inner.max_torque))
    )


def _acrobot(inner: Any, seen: Array, _: Array | None) -> None:
    inner.state = np.array(
        [np.arctan2(seen[1], seen[0]), np.arctan2(seen[3], seen[2]), seen[4], seen[5]]
    )


def _mountain_car(inner: Any, seen: Array, _: Array | None) -> None:
    inner.state = np.array(seen, np.float64)


def _square(inner: Any, seen: Array, action: Array | None) -> None:
    inner.s, inner.lastaction = int(seen), None if action is None else int(action)


WORLDS: dict[str, Put] = {
    "CartPoleEnv": _cart_pole,
    "PendulumEnv": _pendulum,
    "AcrobotEnv": _acrobot,
    "MountainCarEnv": _mountain_car,
    "Continuous_MountainCarEnv": _mountain_car,
    "FrozenLakeEnv": _square,
    "TaxiEnv": _square,
    "CliffWalkingEnv": _square,
}
"""By the name of Gymnasium's class: all of `rlhp.envs.states.SMALL_WORLDS`."""


ROUNDING = 2
"""Gray levels by which a frame may differ that was shrunk by other code."""
SPRITES = 256
"""Pixels along the longer edge, up to which a picture is one of sprites rather than
drawn in detail.
"""


log = logging.getLogger(__name__)


class View(Protocol):
    """Draws segments of one environment."""

    how: str
    """In a word or two, for figures and reports."""
    fps: int
    """Of playback."""

    def frames(self, segment: Segment) -> Array:
        """[K, H, W, 3] uint8, what was to be seen before each action; ValueError where
        that cannot be known.
        """

    def close(self) -> None: ...


def check_drawable(env: EnvConfig) -> Way:
    """How segments will be drawn; ValueError where they cannot, before anything is
    started.
    """
    made = make_env(env)
    try:
        with blamed(env, "its attributes"):
            way = way_to_draw(made)
    except CannotDraw as error:
        raise RlhpError(
            f"env.id={env.id!r}: {error}. To let scripts answer that need no clips, set "
            "clips.enabled=false"
        ) from None
    finally:
        made.close()  # type: ignore[no-untyped-call]
    if way not in ("mujoco", "replay", "image"):
        _try_drawing(env, way)
    return way


def make_view(env: EnvConfig, clips: ClipsConfig, *, backend: gl.Backend = "schematic") -> View:
    """The view of this environment; ValueError where it cannot be made.

    `backend` draws MuJoCo: anything but `schematic` only in a process that has not
    imported MuJoCo yet.
    """
    _without_screen()
    gl.use(backend)
    made = make_env(env)
    way, fps = way_to_draw(made), clips.fps or playback_fps(env, made)
    if way == "mujoco":
        return _mujoco(made.unwrapped, clips, backend, fps)
    made.close()  # type: ignore[no-untyped-call]
    if way == "replay":
        return ReplayView(env, clips, fps)
    if way in ("image", "picture"):
        return PictureView(clips, fps, way)
    return OwnView(make_env(env, render_mode="rgb_array"), clips, fps, way)


def may_be_mujoco(env: EnvConfig) -> bool:
    """False where the name alone tells that it is not: a backend takes a second to try."""
    spec = gym.registry.get(env.id)
    where = "" if spec is None else str(spec.entry_point)
    return not where.startswith("gymnasium.envs.") or "mujoco" in where


def _try_drawing(env: EnvConfig, way: Way) -> None:
    """Make it as it will be made for drawing, and draw one frame where its own code
    does so; ValueError as it fails.
    """
    _without_screen()
    made = make_env(env, render_mode="rgb_array")
    try:
        inner: Any = made.unwrapped
        if way in ("state", "picture"):
            made.reset(seed=0)
        if way == "state":
            with blamed(env, "rlhp_state"):
                state = np.array(inner.rlhp_state(), np.float64)
                if state.ndim != 1 or not np.isfinite(state).all():
                    raise Unfit(
                        f"expected one row of finite numbers, got shape {state.shape}: {state}"
                    )
            with blamed(env, "rlhp_set_state"):
                inner.rlhp_set_state(state)
        if way in ("state", "picture"):
            made.render()
    finally:
        made.close()  # type: ignore[no-untyped-call]


def _without_screen() -> None:
    # pygame, with which Gymnasium draws, looks for a screen
    for device in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
        os.environ.setdefault(device, "dummy")


def _mujoco(inner: Any, clips: ClipsConfig, backend: gl.Backend, fps: int) -> View:
    from rlhp.labeling.clips.mujoco import MujocoView

    if backend != "schematic":
        return MujocoView(inner, width=clips.width, height=clips.height, fps=fps, backend=backend)
    from rlhp.labeling.clips.mujoco import SchematicView

    return SchematicView(inner, width=clips.width, height=clips.height, fps=fps)


class OwnView:
    """The environment draws itself, step by step put into what it was."""

    def __init__(self, env: gym.Env[Any, Any], clips: ClipsConfig, fps: int, way: Way) -> None:
        self.how, self.fps = f"its own render ({way})", fps
        self._env, self._clips = env, clips
        self._inner: Any = env.unwrapped
        self._world = WORLDS[type(self._inner).__name__] if way == "observed" else None
        self._lander = way == "lander"
        env.reset(seed=0)

    def frames(self, segment: Segment) -> Array:
        """As `View.frames`."""
        return fitted(
            np.stack([self._frame(segment, step) for step in range(segment.length)]), self._clips
        )

    def _frame(self, segment: Segment, step: int) -> Array:
        if self._world is not None:
            self._world(
                self._inner, segment.obs[""][step], segment.actions[step - 1] if step else None
            )
        elif segment.state is None:
            raise CannotDraw(f"segment {segment.id} carries no state to draw")
        elif self._lander:
            put_lander(self._inner, segment.state[step])
        else:
            self._inner.rlhp_set_state(np.array(segment.state[step]))
        try:
            return guard.frame(self._inner.render())
        except Unfit as error:
            raise CannotDraw(f"render: {error}") from None

    def close(self) -> None:
        """Close the environment."""
        self._env.close()  # type: ignore[no-untyped-call]


class PictureView:
    """What is to be seen was kept: as the observation, or beside it. Of stacked
    pictures the newest.
    """

    def __init__(self, clips: ClipsConfig, fps: int, way: Way) -> None:
        self._clips, self.fps = clips, fps
        self.how = "observation" if way == "image" else "picture kept with the step"

    def frames(self, segment: Segment) -> Array:
        """As `View.frames`."""
        if segment.state_kind == "picture" and segment.state is not None:
            return fitted(np.stack([open_picture(state) for state in segment.state]), self._clips)
        pictures = [leaf for leaf in segment.obs.values() if leaf.ndim >= 3]
        if len(pictures) != 1:
            raise CannotDraw(f"segment {segment.id} carries no picture")
        return fitted(as_rgb(pictures[0][: segment.length]), self._clips)

    def close(self) -> None:
        """Nothing is held."""


class ReplayView:
    """An Atari game as the console showed it, where playing it again leads to what the
    policy saw; else the latter.
    """

    how = "the game, played again"

    def __init__(self, env: EnvConfig, clips: ClipsConfig, fps: int) -> None:
        self._env, self._clips, self.fps = env, clips, fps

    def frames(self, segment: Segment) -> Array:
        """As `View.frames`."""
        seen = segment.obs[""][: segment.length, -1]
        if segment.state is not None and segment.state_kind == "replay":
            screens, gray = replay(self._env, segment.state)
            for top, bottom, left, right in blanks(self._env):
                gray[:, top:bottom, left:right] = 0
            if np.abs(gray - seen).max() <= ROUNDING:
                return fitted(screens, self._clips)
            log.warning(
                "segment %s is another game when it is played again; it is shown as the policy "
                "saw it",
                segment.id,
            )
        return fitted(as_rgb(seen), self._clips)

    def close(self) -> None:
        """Nothing is held."""


def as_rgb(pictures: Array) -> Array:
    """[K, H, W], [K, H, W, 1 or 3] or stacks [K, S, H, W] or [K, H, W, S] -> [K, H, W,
    3], of a stack the last.
    """
    if pictures.ndim == 4 and pictures.shape[-1] not in (1, 3):
        pictures = pictures[..., -1] if pictures.shape[-1] < pictures.shape[1] else pictures[:, -1]
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    return np.ascontiguousarray(np.broadcast_to(pictures, (*pictures.shape[:3], 3)), dtype=np.uint8)


def fitted(frames: Array, clips: ClipsConfig) -> Array:
    """Shrunk into the size of clips; small ones enlarged by a whole number to about
    that, so sprites stay sharp.

    Video keeps colors at half the resolution: a sprite of one pixel would be lost in
    it.
    """
    height, width = frames.shape[1:3]
    share = min(clips.width / width, clips.height / height)
    if share >= 1:
        factor = int(np.ceil(share - 0.1)) if max(height, width) <= SPRITES else 1
        return frames.repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else frames
    size = (max(2, round(width * share)), max(2, round(height * share)))
    return np.stack(
        [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames]
    )
