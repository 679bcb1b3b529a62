"""How steps of an environment can be shown later, to people: what an env runner has to keep for that.

state      `rlhp_state()` and `rlhp_set_state(state)`, both of the environment's own: it draws itself from states
mujoco     qpos, qvel and time are enough
lander     so are the bodies and the ground of Gymnasium's LunarLander
observed   the observation says all that is to be seen in Gymnasium's small worlds
replay     an Atari game is played again: see `rlhp.rollout.replay`
image      the observation is a picture
picture    nothing of these, but it draws itself: a small picture is kept with every step, which may cost many times
           the step; so the first environment of each runner alone is drawn, and asked about
"""

from __future__ import annotations

import io
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from rlhp.errors import RlhpError
from rlhp.rollout.lander import is_lander
from rlhp.types import Array, Segment

Way = Literal["state", "mujoco", "lander", "observed", "replay", "image", "picture"]

SMALL_WORLDS = (
    "CartPoleEnv", "PendulumEnv", "AcrobotEnv", "MountainCarEnv", "Continuous_MountainCarEnv",
    "FrozenLakeEnv", "TaxiEnv", "CliffWalkingEnv",
)  # fmt: skip
PICTURE_SIDE = 160
"""Most pixels along an edge of a picture that is kept."""
PICTURE_BYTES = 4096
"""Of a kept picture, padding included: a thousand segments of 50 steps are 200 MB in the query actor."""


class CannotDraw(RlhpError):
    """Nothing can be shown of a segment, or of an environment: why, and the way out, in one line."""


def way_to_draw(env: gym.Env[Any, Any]) -> Way:
    """The first of the ways above that this environment allows; CannotDraw where none does."""
    inner: Any = env.unwrapped
    name, home = type(inner).__name__, type(inner).__module__
    modes = env.metadata.get("render_modes")
    draws_itself = isinstance(modes, list | tuple | set | frozenset) and "rgb_array" in modes
    if callable(getattr(inner, "rlhp_state", None)) and callable(getattr(inner, "rlhp_set_state", None)):
        if draws_itself:
            return "state"
        raise CannotDraw(f"{name} can be put into a state, but not drawn: give it render_mode='rgb_array'")
    data = getattr(inner, "data", None)
    if all(isinstance(getattr(data, each, None), np.ndarray) for each in ("qpos", "qvel")):
        return "mujoco"
    if is_lander(inner):
        return "lander"
    if name in SMALL_WORLDS and home.startswith(("gymnasium.envs.classic_control.", "gymnasium.envs.toy_text.")):
        return "observed"
    if getattr(inner, "can_replay", False):
        return "replay"
    if _is_picture(env.observation_space):
        return "image"
    if draws_itself:
        return "picture"
    raise CannotDraw(
        f"{name} cannot be drawn: it is neither MuJoCo nor one of Gymnasium's small worlds, observes no pictures, and "
        "its metadata name no render mode rgb_array"
    )


class Pictured(gym.Wrapper[Any, Any, Any, Any]):
    """An environment made for drawing, of which `picture` keeps what is to be seen; nothing, where not `draws`."""

    def __init__(self, env: gym.Env[Any, Any], *, draws: bool) -> None:
        super().__init__(env)
        self._draws = draws

    def picture(self) -> Array:
        """[PICTURE_BYTES / 8] float64: a JPEG padded with zeros, in the type that simulator states have."""
        data = _jpeg(np.asarray(self.env.render())) if self._draws else b""  # which the guard has made RGB
        return np.frombuffer(data.ljust(PICTURE_BYTES, b"\0"), "<f8")


def has_pictures(segment: Segment) -> bool:
    """Whether its environment was one that is drawn."""
    return segment.state is not None and bool(np.ascontiguousarray(segment.state).view(np.uint8).any())


def open_picture(state: Array) -> Array:
    """What `Pictured.picture` kept -> [H, W, 3] uint8; CannotDraw where it is none."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(np.ascontiguousarray(state, "<f8").tobytes())) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise CannotDraw(f"the picture kept with a step is damaged: {error}") from error


def _jpeg(frame: Array) -> bytes:
    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
    for quality in (85, 70, 50, 30, 10):
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=quality)
        if buffer.tell() <= PICTURE_BYTES:
            return buffer.getvalue()
    image.thumbnail((PICTURE_SIDE // 2, PICTURE_SIDE // 2), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=10)  # noise of 80 x 80 pixels takes about 3 kB
    return buffer.getvalue()


def _is_picture(space: gym.Space[Any]) -> bool:
    spaces = list(space.spaces.values()) if isinstance(space, gym.spaces.Dict) else [space]
    boxes = [box for box in spaces if isinstance(box, gym.spaces.Box) and box.dtype == np.uint8]
    return sum(len(box.shape) >= 2 and max(box.shape) >= 32 for box in boxes) == 1
