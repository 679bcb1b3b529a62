"""MuJoCo segments drawn from their saved simulator state, with the camera that
Gymnasium would use, or plainly where no OpenGL works.

Import it only after `rlhp.labeling.clips.gl.choose`: MuJoCo fixes its OpenGL backend at
import. A view is not for a thread other than the one that built it, since an OpenGL
context belongs to its thread.

The plain drawing shows bodies as strokes, from the side or from above, and needs
MuJoCo's kinematics and Pillow alone. Every picture of it says that it is schematic,
since a person may judge differently by it.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from PIL import Image, ImageDraw

from rlhp.types import Array, Segment

FEWEST_FACES, PIXELS_PER_FACE = 16, 15
"""Faces around a sphere or capsule: in a small clip more of them are not seen, and a
CPU pays for each.
"""


class Scene:
    """The model of an environment, put into the states of a segment one after the
    other.
    """

    def __init__(self, inner: Any) -> None:
        """`inner` is the unwrapped environment; it is not stepped."""
        self.model, self.data = inner.model, inner.data

    def put(self, state: Array) -> None:
        """Take the state [qpos, qvel, time]; ValueError for that of another model."""
        nq, nv = self.model.nq, self.model.nv
        if len(state) != nq + nv + 1:
            raise ValueError(f"a state of this model has {nq} + {nv} + 1 numbers, got {len(state)}")
        self.data.qpos[:], self.data.qvel[:], self.data.time = (
            state[:nq],
            state[nq : nq + nv],
            state[-1],
        )
        mujoco.mj_forward(self.model, self.data)


class MujocoView:
    """Draws with OpenGL, without shadows: they would cost twenty times the rest on a
    CPU.
    """

    def __init__(self, inner: Any, *, width: int, height: int, fps: int, backend: str) -> None:
        self.how, self.fps = f"mujoco ({backend})", fps
        self._scene = Scene(inner)
        model = self._scene.model
        # Read when the OpenGL context is made, so before the renderer is; later they do
        # nothing.
        spare(model.vis.quality, height=height)
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        self._camera = _camera(inner)
        self._renderer = mujoco.Renderer(model, height, width)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0

    def frames(self, segment: Segment) -> Array:
        """[K, H, W, 3], what was seen before each action."""
        if segment.state is None:
            raise ValueError(f"segment {segment.id} carries no simulator state to draw")
        frames = np.empty(
            (len(segment.state), self._renderer.height, self._renderer.width, 3), np.uint8
        )
        for frame, state in zip(frames, segment.state, strict=True):
            self._scene.put(state)
            self._renderer.update_scene(self._scene.data, self._camera)
            self._renderer.render(out=frame)
        return frames

    def close(self) -> None:
        """Give the OpenGL context back."""
        self._renderer.close()


def spare(quality: Any, *, height: int) -> None:
    """Leave out of a model's `vis.quality` what costs most without a GPU, and can
    hardly be seen in a small picture.

    On one core, Humanoid at 240 x 240 takes about a third less for its coarser bodies;
    the pixels differ by 0.1 of 255.
    """
    quality.shadowsize = quality.offsamples = 0
    quality.numslices = min(quality.numslices, max(FEWEST_FACES, height // PIXELS_PER_FACE))
    quality.numstacks = min(quality.numstacks, quality.numslices // 2)


def _camera(inner: Any) -> Any:
    """Gymnasium's choice: the model's camera `track` if it has one, else a free one
    with the environment's view.
    """
    camera = mujoco.MjvCamera()
    viewer = getattr(inner, "mujoco_renderer", None)
    index = mujoco.mj_name2id(inner.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    index = int(getattr(viewer, "camera_id", index))
    if index >= 0:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, index
        return camera
    inner.reset(seed=0)  # a free camera looks at the middle of the bodies where they begin
    camera.type, camera.distance = mujoco.mjtCamera.mjCAMERA_FREE, inner.model.stat.extent
    camera.lookat[:] = np.median(inner.data.geom_xpos, axis=0)
    view = getattr(viewer, "default_cam_config", None) or {}
    for name, value in view.items():
        if isinstance(value, np.ndarray):
            getattr(camera, name)[:] = value
        else:
            setattr(camera, name, value)
    return camera


PAPER, GROUND, INK = (246, 246, 243), (196, 198, 192), (70, 70, 70)
LIMBS = ((196, 138, 82), (176, 92, 108), (84, 120, 168), (92, 148, 104), (140, 104, 168))
NOTE = "schematic view: no OpenGL here"
LONG = (int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_CYLINDER))
MARGIN = 1.35
"""Room around the bodies, as a multiple of their reach."""
FLAT = 0.15
"""Bodies whose heights differ by less, as a share of their reach, are seen from above.
"""


class SchematicView:
    """Draws like `MujocoView`, far plainer."""

    how = "mujoco (schematic)"

    def __init__(self, inner: Any, *, width: int, height: int, fps: int) -> None:
        self.fps = fps
        inner.reset(seed=0)
        self._scene = Scene(inner)
        self._size = (width, height)
        model = self._scene.model
        world = model.body_rootid == 0
        self._geoms = [g for g in range(model.ngeom) if not world[model.geom_bodyid[g]]]
        if not self._geoms:
            raise ValueError("this MuJoCo model has no moving body to draw")
        # As Gymnasium does: what has a camera that tracks it is followed, anything else
        # moves before a still view.
        self._follows = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track") >= 0
        places, largest = (
            self._scene.data.geom_xpos[self._geoms],
            model.geom_rbound[self._geoms].max(),
        )
        reach = np.ptp(places, axis=0) if self._follows else 2 * np.abs(places).max(0)
        self._reach = float(max((reach + 2 * largest).max(), 1e-3))
        self._axes = (0, 1) if np.ptp(places[:, 2]) < FLAT * self._reach else (0, 2)

    def frames(self, segment: Segment) -> Array:
        """[K, H, W, 3], before each action."""
        if segment.state is None:
            raise ValueError(f"segment {segment.id} carries no simulator state to draw")
        frames = []
        for state in segment.state:
            self._scene.put(state)
            frames.append(self._draw())
        return np.stack(frames)

    def close(self) -> None:
        """Nothing is held."""

    def _draw(self) -> Array:
        image = Image.new("RGB", self._size, PAPER)
        draw = ImageDraw.Draw(image)
        middle = self._scene.data.geom_xpos[self._geoms].mean(0)[list(self._axes)] * self._follows
        scale = min(self._size) / (MARGIN * self._reach)
        self._ground(draw, middle, scale)
        for number, geom in enumerate(self._geoms):
            self._stroke(draw, geom, LIMBS[number % len(LIMBS)], middle, scale)
        draw.text((4, self._size[1] - 14), NOTE, fill=INK)
        return np.asarray(image)

    def _pixel(self, place: Array, middle: Array, scale: float) -> tuple[float, float]:
        across, up = (place - middle) * scale
        return self._size[0] / 2 + float(across), self._size[1] / 2 - float(up)

    def _ground(self, draw: Any, middle: Array, scale: float) -> None:
        """The floor from the side, with a mark per half metre that shows how far it
        went; a grid from above.
        """
        width, height = self._size
        half = width / 2 / scale
        for mark in range(int(2 * (middle[0] - half)) - 1, int(2 * (middle[0] + half)) + 2):
            x, y = self._pixel(np.array([mark / 2, 0.0]), middle, scale)
            from_above = self._axes == (0, 1)
            draw.line(
                [(x, 0 if from_above else y), (x, height if from_above else y + 6)], fill=GROUND
            )
        if self._axes == (0, 2):
            y = self._pixel(np.zeros(2), middle, scale)[1]
            draw.line([(0, y), (width, y)], fill=GROUND, width=2)
            return
        for mark in range(int(2 * (middle[1] - half)) - 1, int(2 * (middle[1] + half)) + 2):
            y = self._pixel(np.array([0.0, mark / 2]), middle, scale)[1]
            draw.line([(0, y), (width, y)], fill=GROUND)

    def _stroke(
        self, draw: Any, geom: int, color: tuple[int, int, int], middle: Array, scale: float
    ) -> None:
        model, data = self._scene.model, self._scene.data
        kind, size = int(model.geom_type[geom]), model.geom_size[geom]
        place, turn = data.geom_xpos[geom], data.geom_xmat[geom].reshape(3, 3)
        axes = list(self._axes)
        along = turn[:, 2] * size[1] if kind in LONG else np.zeros(3)
        if kind == int(mujoco.mjtGeom.mjGEOM_BOX):  # as thick as its second edge, along its longest
            longest = int(np.argmax(size))
            along, radius = turn[:, longest] * size[longest], float(np.sort(size)[1])
        else:
            radius = float(size[0])
        ends = [self._pixel((place + sign * along)[axes], middle, scale) for sign in (-1, 1)]
        thick = max(1.5, radius * scale)
        draw.line(ends, fill=color, width=max(1, round(2 * thick)))
        for x, y in ends:
            draw.ellipse([x - thick, y - thick, x + thick, y + thick], fill=color)
