"""What the simulator of an environment is in, as numbers: enough to draw it later, for
people.

How an environment's steps can be shown decides what an env runner keeps of them:

state      `rlhp_state()` and `rlhp_set_state(state)`, both of the environment's own: it draws
           itself from states
mujoco     qpos, qvel and time are enough
lander     so are the bodies and the ground of Gymnasium's LunarLander
observed   the observation says all that is to be seen in Gymnasium's small worlds
replay     an Atari game is played again: see `rlhp.envs.atari_replay`
image      the observation is a picture
picture    nothing of these, but it draws itself: a small picture is kept with every step, which
           may cost many times the step; so the first environment of each runner alone is drawn,
           and asked about

LunarLander has a way of its own, since its observation leaves the terrain out and
MuJoCo's qpos and qvel have no counterpart in Box2D.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from rlhp.envs.atari import AtariGames
from rlhp.envs.guard import Guarded, Unfit
from rlhp.errors import RlhpError
from rlhp.types import Array, Segment


def is_lander(inner: Any) -> bool:
    """Whether this unwrapped environment is Gymnasium's."""
    return type(inner).__module__ == "gymnasium.envs.box2d.lunar_lander"


def lander_state(inner: Any) -> list[float]:
    """Heights of the ground from left to right, then x, y and angle of the lander and
    of each leg.
    """
    heights = [inner.sky_polys[0][0][1], *(polygon[1][1] for polygon in inner.sky_polys)]
    bodies = [number for body in inner.drawlist for number in (*body.position, body.angle)]
    return heights + bodies


def put_lander(inner: Any, state: Array) -> None:
    """Make `inner.render()` show this state; the environment must have been reset once."""
    heights, bodies = state[:-9], state[-9:].reshape(3, 3)
    for number, polygon in enumerate(inner.sky_polys):
        polygon[0] = (polygon[0][0], float(heights[number]))
        polygon[1] = (polygon[1][0], float(heights[number + 1]))
    inner.particles = []
    for body, (x, y, angle) in zip(inner.drawlist, bodies, strict=True):
        body.position, body.angle = (float(x), float(y)), float(angle)


Way = Literal["state", "mujoco", "lander", "observed", "replay", "image", "picture"]

SMALL_WORLDS = (
    "CartPoleEnv", "PendulumEnv", "AcrobotEnv", "MountainCarEnv", "Continuous_MountainCarEnv",
    "FrozenLakeEnv", "TaxiEnv", "CliffWalkingEnv",
)  # fmt: skip
PICTURE_SIDE = 160
"""Most pixels along an edge of a picture that is kept."""
PICTURE_BYTES = 4096
"""Of a kept picture, padding included: a thousand segments of 50 steps are 200 MB in
the query actor.
"""


class CannotDraw(RlhpError):
    """Nothing can be shown of a segment, or of an environment: why, and the way out, in
    one line.
    """


def way_to_draw(env: gym.Env[Any, Any]) -> Way:
    """The first of the ways above that this environment allows; CannotDraw where none
    does.
    """
    inner: Any = env.unwrapped
    name, home = type(inner).__name__, type(inner).__module__
    modes = env.metadata.get("render_modes")
    draws_itself = isinstance(modes, list | tuple | set | frozenset) and "rgb_array" in modes
    if callable(getattr(inner, "rlhp_state", None)) and callable(
        getattr(inner, "rlhp_set_state", None)
    ):
        if draws_itself:
            return "state"
        raise CannotDraw(
            f"{name} can be put into a state, but not drawn: give it render_mode='rgb_array'"
        )
    data = getattr(inner, "data", None)
    if all(isinstance(getattr(data, each, None), np.ndarray) for each in ("qpos", "qvel")):
        return "mujoco"
    if is_lander(inner):
        return "lander"
    if name in SMALL_WORLDS and home.startswith(
        ("gymnasium.envs.classic_control.", "gymnasium.envs.toy_text.")
    ):
        return "observed"
    if getattr(inner, "can_replay", False):
        return "replay"
    if _is_picture(env.observation_space):
        return "image"
    if draws_itself:
        return "picture"
    raise CannotDraw(
        f"{name} cannot be drawn: it is neither MuJoCo nor one of Gymnasium's small worlds, "
        "observes no pictures, and its metadata name no render mode rgb_array"
    )


class Pictured(gym.Wrapper[Any, Any, Any, Any]):
    """An environment made for drawing, of which `picture` keeps what is to be seen;
    nothing, where not `draws`.
    """

    def __init__(self, env: gym.Env[Any, Any], *, draws: bool) -> None:
        super().__init__(env)
        self._draws = draws

    def picture(self) -> Array:
        """[PICTURE_BYTES / 8] float64: a JPEG padded with zeros, in the type that
        simulator states have.
        """
        # which the guard has made RGB
        data = _jpeg(np.asarray(self.env.render())) if self._draws else b""
        return np.frombuffer(data.ljust(PICTURE_BYTES, b"\0"), "<f8")


def has_pictures(segment: Segment) -> bool:
    """Whether its environment was one that is drawn."""
    return segment.state is not None and bool(
        np.ascontiguousarray(segment.state).view(np.uint8).any()
    )


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


Env = gym.Env[Any, Any]


def state_kind(env: Env) -> str:
    """`hook` where the unwrapped environment has a method `rlhp_state`, `mujoco` for
    MuJoCo, `lander` for Gymnasium's LunarLander, `picture` where one is kept of each
    step, else `none`.
    """
    if isinstance(env, Pictured):
        return "picture"
    inner = env.unwrapped
    if callable(getattr(inner, "rlhp_state", None)):
        return "hook"
    if is_lander(inner):
        return "lander"
    data = getattr(inner, "data", None)
    return (
        "mujoco"
        if all(isinstance(getattr(data, name, None), np.ndarray) for name in ("qpos", "qvel"))
        else "none"
    )


def sim_state(env: Env) -> Array | None:
    """[S] float64 simulator state: what `rlhp_state` returns, MuJoCo's qpos, qvel and
    time; None for others.
    """
    return None if state_kind(env) == "none" else state_reader(env)()


def state_reader(env: Env) -> Callable[[], Array]:
    """Reads the simulator state of this environment, which has one, again and again."""
    inner: Any = env.unwrapped
    asked = guard_of(env)
    first: list[int] = []

    def hook() -> Array:
        with asked("rlhp_state"):
            state = np.array(inner.rlhp_state(), dtype=np.float64)
            if state.ndim != 1 or (first and first[0] != len(state)):
                size = f", always {first[0]} of them" if first else ""
                raise Unfit(
                    f"returns a one-dimensional array of numbers{size}; got shape {state.shape}"
                )
        first[:] = [len(state)]
        return state

    def mujoco() -> Array:
        data = inner.data
        return np.concatenate((data.qpos, data.qvel, (data.time,)))

    def lander() -> Array:
        return np.array(lander_state(inner), dtype=np.float64)

    if isinstance(env, Pictured):
        return env.picture
    return {"hook": hook, "lander": lander}.get(state_kind(env), mujoco)


def states_of(
    envs: VectorEnv[Any, Any, Any], *, draws_clips: bool
) -> tuple[str, Callable[[], Array] | None]:
    """The kind of simulator states that these environments have and what reads them [N,
    S]; `none` and None for others.

    Of Atari games only people want any, and theirs is the number of frames before a
    game's first step, else 0: with the actions that is enough to play it again, see
    `rlhp.envs.atari_replay`.
    """
    if isinstance(envs, AtariGames):
        games = envs
        if not draws_clips or not games.can_replay:
            return "none", None
        return "replay", lambda: games.begun[:, None].astype(np.float64)
    singles = list(getattr(envs, "envs", ()))
    if not singles or state_kind(singles[0]) == "none":
        return "none", None
    readers = [state_reader(env) for env in singles]

    def read() -> Array:
        states = [each() for each in readers]
        if len({len(state) for state in states}) > 1:
            with guard_of(singles[0])("rlhp_state"):
                raise Unfit(
                    "returns as many numbers in each environment; got "
                    f"{[len(state) for state in states]}"
                )
        return np.stack(states)

    return state_kind(singles[0]), read


def guard_of(env: Env) -> Callable[[str], AbstractContextManager[None]]:
    """What blames this environment for what it raises when it is asked for something;
    nobody, where it has no guard.
    """
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Guarded):
            return env.asked
        env = env.env
    return lambda call: nullcontext()
