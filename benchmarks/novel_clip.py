"""Draws the best episode of novel behavior that `benchmarks.novel` kept: a film, and
its frames on one sheet.

python -m benchmarks.novel_clip                # docs/images/backflip.webm and .png,
one_leg.webm and .png
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import novel
from rlhp.config import loading
from rlhp.config.schema import ClipsConfig
from rlhp.labeling.clips.painter import Painter
from rlhp.types import Array, Segment

IMAGES = Path(__file__).parent.parent / "docs" / "images"
FILM_STEPS = 300
"""Most steps in the film: seven and a half seconds of playback for the hopper."""
SHEET = 8
"""Frames on the sheet."""
SHEET_STEPS = {"backflip": 10, "one_leg": 2}
"""Steps between two of them."""
MOST_BYTES = 1_000_000
PATIENCE = 600
"""Seconds for a clip: this is a long one, and benches keep the machine busy."""


def draw(task: str, *, images: Path = IMAGES) -> tuple[Path, Path]:
    """The film and the sheet of a task's best episode; ValueError where none is kept
    yet.
    """
    kept = novel.clip(task)
    if not kept.exists():
        raise ValueError(
            f"{kept} is not there, so there is no episode to draw; run python -m benchmarks.novel "
            "first"
        )
    with np.load(kept, allow_pickle=False) as data:
        state = data["state"]
    env = loading.load(novel.CONFIGS / novel.TASKS[task].config).env
    start = liveliest(state, task)
    film, sheet = images / f"{task}.webm", images / f"{task}.png"
    with Painter(env, ClipsConfig(width=320, height=240, timeout_seconds=PATIENCE)) as painter:
        data = painter.clip(as_segment(state[start : start + FILM_STEPS])).data
    if len(data) > MOST_BYTES:
        raise ValueError(
            f"{film} would have {len(data):,} bytes, more than {MOST_BYTES:,}; lower FILM_STEPS"
        )
    with Painter(
        env, ClipsConfig(width=240, height=240, codec="apng", timeout_seconds=PATIENCE)
    ) as painter:
        rows = state[start :: SHEET_STEPS[task]][:SHEET]
        frames = pictures(painter.clip(as_segment(rows)).data)
    images.mkdir(exist_ok=True)
    film.write_bytes(data)
    half = len(frames) // 2
    Image.fromarray(np.vstack([np.hstack(frames[:half]), np.hstack(frames[half:])])).save(
        sheet, optimize=True
    )
    return film, sheet


def liveliest(state: Array, task: str) -> int:
    """First step of the FILM_STEPS with most of what the task wants."""
    starts = range(0, max(1, len(state) - FILM_STEPS + 1), 50)
    qpos = state[:, : novel.TASKS[task].positions]
    best_by = novel.TASKS[task].best_by
    return max(
        starts, key=lambda start: novel.TASKS[task].read(qpos[start : start + FILM_STEPS])[best_by]
    )


def as_segment(state: Array) -> Segment:
    """These states [K, S] as a segment, for drawing alone."""
    steps = len(state)
    return Segment(
        id="best", run="novel", env_runner=0, episode="best", start=0,
        obs={"": np.zeros((steps + 1, 1), np.float32)}, actions=np.zeros((steps, 1), np.float32),
        env_reward=None, predicted_reward=None, reward_version=None, policy_version=0, env_steps=0,
        terminated=False, truncated=True, state=state, state_kind="mujoco",
    )  # fmt: skip


def pictures(data: bytes) -> list[Array]:
    """The frames of an animated PNG, each [H, W, 3]."""
    found = []
    with Image.open(io.BytesIO(data)) as image:
        for frame in range(getattr(image, "n_frames", 1)):
            image.seek(frame)
            found.append(np.asarray(image.convert("RGB")))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--task", choices=sorted(novel.TASKS), action="append", help="default: those that are kept"
    )
    for task in parser.parse_args().task or [
        task for task in novel.TASKS if novel.clip(task).exists()
    ]:
        for path in draw(task):
            print(f"wrote {path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
