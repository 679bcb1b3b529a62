"""Scripted judges: teachers for behavior that no env reward describes (Christiano et
al. 2017, section 3.2).

Shapes: K steps per segment, S simulator state, G geoms of the body.

A judge scores each segment by what a person would see in the clip, reads nothing but
the simulator state recorded with it, and prefers the higher score. So a run that is
judged this way sends no env rewards:

    labels:
      teacher: {name: "rlhp.labeling.judges:BackflipJudge"}
      share_env_reward: false

Positions of the parts of the body come from MuJoCo's kinematics of the recorded joint
positions; mujoco and gymnasium are imported only when a judge is built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhp.config.schema import EnvConfig
from rlhp.errors import RlhpError
from rlhp.types import CHOICES, Answer, Array, Query, Segment

TOUCH = 0.01
"""Metres: a part this near to the floor touches it."""

UPRIGHT = 0.6
"""Radians of pitch within which a hopper that lands is upright."""

LEAST_FLIGHT = 5
"""Steps in the air that make coming down a landing rather than a wobble."""

_X, _PITCH = 0, 2  # places in qpos; both environments count x forward and pitch forward


class Judge(ABC):
    """Prefers the segment with the highest score; all within `margin` are a tie.

    Derive one by naming the environment whose states it reads and giving a score:

        class Tall(Judge):
            env_id = "Hopper-v5"
            def score(self, segment):
                return self.body.qpos(segment)[:, 1].mean()
    """

    env_id: str

    def __init__(self, *, margin: float) -> None:
        if not 0 <= margin < np.inf:
            raise RlhpError(f"margin is a difference of scores, 0 or more; got {margin!r}")
        self.margin = margin
        self.body = Body(self.env_id)

    @abstractmethod
    def score(self, segment: Segment) -> float:
        """How much of the wanted behavior a person would see; ValueError where there is
        no state to look at.
        """

    def answer(self, query: Query) -> Answer:
        """The answer to `query`."""
        scores = [self.score(segment) for segment in query.candidates]
        if max(scores) - min(scores) <= self.margin:
            return Answer.TIE
        return CHOICES[scores.index(max(scores))]


class Body:
    """Where the parts of a MuJoCo body are, given its recorded states."""

    def __init__(self, env_id: str) -> None:
        import mujoco

        from rlhp.envs.make import make_env

        env = make_env(EnvConfig(id=env_id, hide_termination=True))
        model: Any = env.unwrapped.model  # type: ignore[attr-defined]
        env.close()  # type: ignore[no-untyped-call]
        self._kinematics = mujoco.mj_kinematics
        self._model, self._data = model, mujoco.MjData(model)
        self._capsules = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)
        names = [model.geom(int(geom)).name.removesuffix("_geom") for geom in self._capsules]
        self.parts = {name: column for column, name in enumerate(names)}
        """Name of a part of the body -> its column in `clearance`."""
        self._env_id = env_id

    def qpos(self, segment: Segment) -> Array:
        """[K, nq] joint positions before each action; ValueError for a segment of any
        other environment.
        """
        width = self._model.nq + self._model.nv + 1
        if (
            segment.state is None
            or segment.state_kind != "mujoco"
            or segment.state.shape[1] != width
        ):
            shape = None if segment.state is None else segment.state.shape
            raise RlhpError(
                f"this judge looks at simulator states of {self._env_id}, {width} numbers per "
                f"step, but segment {segment.id} has state_kind={segment.state_kind!r} and states "
                f"of shape {shape}; set env.id={self._env_id}, or another labels.teacher"
            )
        return segment.state[:, : self._model.nq]

    def clearance(self, qpos: Array) -> Array:
        """[K, G] metres between the floor and the lowest point of each part."""
        clear = np.empty((len(qpos), len(self._capsules)))
        radius, half = self._model.geom_size[self._capsules, :2].T
        for step, row in enumerate(qpos):
            self._data.qpos[:] = row
            self._kinematics(self._model, self._data)
            # 1 where the capsule stands on end
            tilt = np.abs(self._data.geom_xmat[self._capsules, 8])
            clear[step] = self._data.geom_xpos[self._capsules, 2] - tilt * half - radius
        return clear


@dataclass(frozen=True, slots=True)
class Flips:
    """What there is to see of backflips in K states of a hopper."""

    turns: Array
    """[K-1] turns backward (heels over head, away from the running direction); negative
    where it turns forward.
    """
    airborne: Array
    """[K] bool, no part touches the floor."""
    fallen: Array
    """[K] bool, something other than the foot touches the floor."""
    landings: Array
    """[K] bool, the first step on the foot, upright, after a flight that turned
    backward.
    """


class BackflipJudge(Judge):
    """Prefers the segment of Hopper with more backflip in it; scores are in turns.

    Backward rotation counts in full while nothing but the foot touches the floor, and
    only `rolling` of it otherwise: a person asks for a flip, not for a roll. Every
    upright landing out of a backward rotation is worth `landing` turns, a segment spent
    wholly in the air `flight`, one spent wholly fallen `-fallen`: that tells standing
    from lying, and jumping from standing, before there is any flip to see.
    """

    env_id = "Hopper-v5"

    def __init__(
        self,
        *,
        rolling: float = 0.2,
        landing: float = 0.25,
        flight: float = 0.1,
        fallen: float = 0.2,
        margin: float = 0.01,
    ) -> None:
        super().__init__(margin=margin)
        self.rolling, self.landing, self.flight, self.fallen = rolling, landing, flight, fallen

    def score(self, segment: Segment) -> float:
        """Turns backward, corrected for how they were made."""
        seen = self.watch(self.body.qpos(segment))
        weight = np.where(seen.fallen[1:] | seen.fallen[:-1], self.rolling, 1.0)
        posture = self.flight * seen.airborne.mean() - self.fallen * seen.fallen.mean()
        return float((weight * seen.turns).sum() + self.landing * seen.landings.sum() + posture)

    def watch(self, qpos: Array) -> Flips:
        """What happens in consecutive states: [K, 6]."""
        clear, foot = self.body.clearance(qpos), self.body.parts["foot"]
        on_foot = clear[:, foot] < TOUCH
        fallen = np.delete(clear, foot, axis=1).min(axis=1) < TOUCH
        airborne = clear.min(axis=1) >= TOUCH
        return Flips(
            turns=-np.diff(qpos[:, _PITCH]) / (2 * np.pi),
            airborne=airborne,
            fallen=fallen,
            landings=_landings(qpos[:, _PITCH], on_foot=on_foot & ~fallen, airborne=airborne),
        )


@dataclass(frozen=True, slots=True)
class OneLeg:
    """What there is to see of running on the hind leg in K states of a cheetah."""

    speed: Array
    """[K-1] metres forward per step."""
    standing: Array
    """[K] bool, the hind leg alone touches the floor."""
    lifted: Array
    """[K] metres between the floor and the front foot, 0 where anything but the hind
    leg touches.
    """


class OneLegJudge(Judge):
    """Prefers the segment of HalfCheetah that gets further forward on its hind leg;
    scores are in metres per step.

    A step counts as far as the front foot is up, fully from `height` metres, and not at
    all while anything but the hind leg touches the floor. What it counts for is
    `standing` metres and the way made forward, at most `fastest` metres: first stand on
    one leg, then run on it.
    """

    env_id = "HalfCheetah-v5"

    def __init__(
        self,
        *,
        height: float = 0.3,
        standing: float = 0.05,
        fastest: float = 0.25,
        margin: float = 0.001,
    ) -> None:
        super().__init__(margin=margin)
        self.height, self.standing, self.fastest = height, standing, fastest

    def score(self, segment: Segment) -> float:
        """Mean credit per step."""
        seen = self.watch(self.body.qpos(segment))
        if len(seen.speed) == 0:
            return 0.0
        up = np.minimum(seen.lifted[1:] / self.height, 1.0)
        return float(
            (up * (self.standing + np.clip(seen.speed, -self.standing, self.fastest))).mean()
        )

    def watch(self, qpos: Array) -> OneLeg:
        """What happens in consecutive states: [K, nq]."""
        clear = self.body.clearance(qpos)
        hind = [self.body.parts[part] for part in ("bthigh", "bshin", "bfoot")]
        others_down = np.delete(clear, hind, axis=1).min(axis=1) < TOUCH
        return OneLeg(
            speed=np.diff(qpos[:, _X]),
            standing=(clear[:, hind].min(axis=1) < TOUCH) & ~others_down,
            lifted=np.where(others_down, 0.0, np.maximum(clear[:, self.body.parts["ffoot"]], 0.0)),
        )


def _landings(pitch: Array, *, on_foot: Array, airborne: Array) -> Array:
    """[K] bool: touches down with the foot, upright, after a flight that turned
    backward.
    """
    landings = np.zeros(len(pitch), bool)
    left = None  # step at which the present flight began
    for step in range(1, len(pitch)):
        if airborne[step]:
            left = step if left is None else left
            continue
        if left is not None and on_foot[step] and step - left >= LEAST_FLIGHT:
            tilt = abs((pitch[step] + np.pi) % (2 * np.pi) - np.pi)
            landings[step] = tilt < UPRIGHT and pitch[left] - pitch[step] > np.pi / 4
        left = None
    return landings
