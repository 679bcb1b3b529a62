"""Which OpenGL draws MuJoCo without a screen on this machine: EGL, else OSMesa, else
none.

MuJoCo fixes its backend when it is first imported, and a broken driver may take the
process with it. So a backend is tried in a child process, and used by a process that
has not imported MuJoCo yet.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from functools import cache
from typing import Literal

from rlhp.errors import RlhpError

log = logging.getLogger(__name__)

OpenGL = Literal["egl", "osmesa"]
BACKENDS: tuple[OpenGL, OpenGL] = ("egl", "osmesa")
Backend = Literal["egl", "osmesa", "schematic"]
"""`schematic` needs no OpenGL: see `rlhp.labeling.clips.mujoco`."""

PACKAGES = {"egl": "libegl1 libopengl0 libgl1-mesa-dri", "osmesa": "libosmesa6"}
"""Debian packages that make a backend work without a GPU."""
TRY_SECONDS = 60.0

_TRY = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody>"
    "<light pos='0 0 1'/><geom size='.1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    assert renderer.render().any(), "a black picture"
"""


@cache
def works(backend: OpenGL) -> bool:
    """Whether a process of its own can draw a ball with it; asked once."""
    # MUJOCO_LOG.TXT is left where it fails
    with tempfile.TemporaryDirectory(prefix="rlhp-gl-") as directory:
        try:
            environment = {**os.environ, "MUJOCO_GL": backend}
            command = [sys.executable, "-c", _TRY]
            subprocess.run(
                command,
                env=environment,
                cwd=directory,
                capture_output=True,
                check=True,
                timeout=TRY_SECONDS,
            )
        except (OSError, subprocess.SubprocessError):
            return False
    return True


def best(wanted: Literal["auto", "egl", "osmesa", "schematic"] = "auto") -> Backend:
    """The backend to draw with; ValueError where the one wanted does not work here.

    `auto` is what MUJOCO_GL names, where that works, then the first of EGL and OSMesa.
    """
    if wanted == "schematic":
        return "schematic"
    if wanted != "auto":
        if works(wanted):
            return wanted
        raise RlhpError(
            f"clips.backend={wanted} does not work on this machine; apt install "
            f"{PACKAGES[wanted]}, or set clips.backend=auto to take what does"
        )
    if os.environ.get("MUJOCO_GL") != "osmesa" and works("egl"):
        return "egl"
    if works("osmesa"):
        return "osmesa"
    log.warning(
        "no OpenGL draws here without a screen, so MuJoCo is shown as a schematic side view; apt "
        "install %s cures it",
        PACKAGES["egl"],
    )
    return "schematic"


def use(backend: Backend) -> None:
    """Set it for MuJoCo's coming import in this process; one that imported it already
    keeps what it had.
    """
    os.environ["MUJOCO_GL"] = "disable" if backend == "schematic" else backend
