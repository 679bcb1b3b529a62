"""MuJoCo segments drawn from their saved simulator state, with the camera that Gymnasium would use.

Import it only after `rlhp.labeling.gl.choose`: MuJoCo fixes its OpenGL backend at import. Not for a thread other
than the one that built it, since an OpenGL context belongs to its thread.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from rlhp.types import Array, Segment

FEWEST_FACES, PIXELS_PER_FACE = 16, 15
"""Faces around a sphere or capsule: in a small clip more of them are not seen, and a CPU pays for each."""


class Scene:
    """The model of an environment, put into the states of a segment one after the other."""

    def __init__(self, inner: Any) -> None:
        """`inner` is the unwrapped environment; it is not stepped."""
        self.model, self.data = inner.model, inner.data

    def put(self, state: Array) -> None:
        """Take the state [qpos, qvel, time]; ValueError for that of another model."""
        nq, nv = self.model.nq, self.model.nv
        if len(state) != nq + nv + 1:
            raise ValueError(f"a state of this model has {nq} + {nv} + 1 numbers, got {len(state)}")
        self.data.qpos[:], self.data.qvel[:], self.data.time = state[:nq], state[nq : nq + nv], state[-1]
        mujoco.mj_forward(self.model, self.data)


class MujocoView:
    """Draws with OpenGL, without shadows: they would cost twenty times the rest on a CPU."""

    def __init__(self, inner: Any, *, width: int, height: int, fps: int, backend: str) -> None:
        self.how, self.fps = f"mujoco ({backend})", fps
        self._scene = Scene(inner)
        model = self._scene.model
        # Read when the OpenGL context is made, so before the renderer is; later they do nothing.
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
        frames = np.empty((len(segment.state), self._renderer.height, self._renderer.width, 3), np.uint8)
        for frame, state in zip(frames, segment.state, strict=True):
            self._scene.put(state)
            self._renderer.update_scene(self._scene.data, self._camera)
            self._renderer.render(out=frame)
        return frames

    def close(self) -> None:
        """Give the OpenGL context back."""
        self._renderer.close()


def spare(quality: Any, *, height: int) -> None:
    """Leave out of a model's `vis.quality` what costs most without a GPU, and can hardly be seen in a small picture.

    On one core, Humanoid at 240 x 240 takes about a third less for its coarser bodies; the pixels differ by 0.1 of 255.
    """
    quality.shadowsize = quality.offsamples = 0
    quality.numslices = min(quality.numslices, max(FEWEST_FACES, height // PIXELS_PER_FACE))
    quality.numstacks = min(quality.numstacks, quality.numslices // 2)


def _camera(inner: Any) -> Any:
    """Gymnasium's choice: the model's camera `track` if it has one, else a free one with the environment's view."""
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
