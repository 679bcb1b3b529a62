"""What Gymnasium's LunarLander shows, as numbers and back: terrain, lander and legs.

The observation leaves the terrain out, and MuJoCo's qpos and qvel have no counterpart in Box2D.
"""

from __future__ import annotations

from typing import Any

from rlhp.types import Array


def is_lander(inner: Any) -> bool:
    """Whether this unwrapped environment is Gymnasium's."""
    return type(inner).__module__ == "gymnasium.envs.box2d.lunar_lander"


def lander_state(inner: Any) -> list[float]:
    """Heights of the ground from left to right, then x, y and angle of the lander and of each leg."""
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
