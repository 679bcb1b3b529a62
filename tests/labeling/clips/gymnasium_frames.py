"""Frames that Gymnasium itself draws while it plays.

    python -m tests.labeling.clips.gymnasium_frames FOLDER SIDE ENV...

It writes FOLDER/ENV.npz for each, with the OpenGL that MUJOCO_GL names.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np

from rlhp.labeling.clips.mujoco import spare

STEPS = 4


def play(name: str, out: Path, *, side: int) -> None:
    """Write the states and what was seen in them."""
    env: Any = gymnasium.make(name, render_mode="rgb_array", width=side, height=side)
    spare(env.unwrapped.model.vis.quality, height=side)
    env.reset(seed=0)
    env.render()  # a free camera looks at the middle of what was there at the first picture
    env.reset(seed=3)
    env.action_space.seed(3)
    states, frames = [], []
    for step in range(STEPS * 5):
        if step % 5 == 0:
            model, data = env.unwrapped.model, env.unwrapped.data
            # after a step, bodies are where they were one substep ago
            mujoco.mj_forward(model, data)
            states.append(np.concatenate((data.qpos, data.qvel, [data.time])))
            frames.append(env.render())
        env.step(env.action_space.sample())
    np.savez(out, states=np.stack(states), frames=np.stack(frames))
    env.close()


if __name__ == "__main__":
    for name in sys.argv[3:]:
        play(name, Path(sys.argv[1]) / f"{name}.npz", side=int(sys.argv[2]))
