"""Takes the pictures of the pages that docs/images holds: the real pages, over a real
queue.

    MUJOCO_GL=egl python -m tests.labeling.page.browser.pictures docs/images runs/NAME

The run gives its metrics to the live view. The clips are HalfCheetah's, moved by a
swing of its joints; under the one in the live view lies its forward speed, in the place
of a reward model's opinion.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
from playwright.sync_api import Page, ViewportSize, sync_playwright

from rlhp.config import loading
from rlhp.labeling.clips.video import encode
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.storage.rundir import RunDir
from tests.labeling.page.browser.parts import (
    CHROMIUM_FLAGS,
    ROOT,
    Asking,
    Served,
    opened,
    playing,
    press,
)

DESK = ViewportSize(width=1280, height=832)
HAND = ViewportSize(width=390, height=844)
LABELERS = ("ann", "ben", "chris")


def cheetah(seed: int, *, steps: int = 60, fps: int = 40) -> tuple[bytes, list[float]]:
    """A clip of a cheetah whose joints swing, and its forward speed in every frame."""
    env = gym.make("HalfCheetah-v5", render_mode="rgb_array", width=320, height=240)
    quality = env.unwrapped.model.vis.quality  # type: ignore[attr-defined]
    quality.shadowsize = quality.offsamples = 0  # several times faster without a GPU
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    phase, pace = rng.uniform(0, 2 * np.pi, 6), rng.uniform(0.2, 0.5)
    frames, speeds = [], []
    for step in range(20 + steps):
        info = env.step((0.9 * np.sin(pace * step + phase)).astype(np.float32))[4]
        if step >= 20:
            speeds.append(float(info["x_velocity"]))
            frames.append(np.asarray(env.render()))
    env.close()  # type: ignore[no-untyped-call]
    return encode(np.stack(frames), fps=fps), speeds


def answered_by_others(asking: Asking) -> None:
    """Everybody answers some queries through the queue, as the page would."""
    dice = random.Random(0)
    for name in LABELERS:
        for _ in range(dice.randint(6, 14)):
            for lease in asking.queue.lease(labeler=name, page=name):
                meta = {"kind": "human", "shown_order": dice.choice([[0, 1], [1, 0]])}
                asking.queue.answer(
                    query=lease.query,
                    labeler=name,
                    page=name,
                    token=lease.token,
                    answer=dice.choices(["first", "second", "tie", "incomparable"], [5, 5, 2, 1])[
                        0
                    ],
                    meta={
                        **meta,
                        "latency_ms": dice.randint(900, 4200),
                    },
                )
        asking.queue.release(page=name)


def run_directory(folder: Path, asking: Asking, *, like: Path) -> RunDir:
    """A directory for the run, with the metrics of another one and a video of the
    policy.
    """
    sections = {
        "env": {"id": "HalfCheetah-v5"},
        "labels": {"source": "human"},
        "tensorboard": False,
    }
    config = loading.parse({**sections, "runs_dir": str(folder), "name": asking.queue.run})
    rundir = RunDir.create(config, asking.queue.run)
    rundir.write_redis_url(asking.url)
    shutil.copy(like / "metrics.jsonl", rundir.metrics_file)
    (rundir.path / "videos").mkdir(exist_ok=True)
    clip, speeds = max(
        (cheetah(seed, steps=120) for seed in range(6)), key=lambda each: sum(each[1])
    )
    (rundir.path / "videos" / "policy.webm").write_bytes(clip)
    (rundir.path / "videos" / "policy.json").write_text(
        json.dumps({"predicted": speeds, "env_steps": 20_000})
    )
    return rundir


def take(page: Page, address: str, token: str, folder: Path) -> None:
    """Every picture, one after the other."""
    opened(page, address, f"/#token={token}")
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp"):
        press(page, key)
    playing(page)
    page.keyboard.press("1")
    page.wait_for_timeout(700)
    page.screenshot(path=folder / "label_light.png")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=folder / "label_dark.png")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(HAND)
    page.screenshot(path=folder / "label_phone.png")
    page.set_viewport_size(DESK)
    while not page.locator("#gathered").is_visible():
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(200)
    page.screenshot(path=folder / "label_waiting.png")
    page.goto(address + "/admin")
    page.locator("#log summary").nth(2).click()
    page.wait_for_function("() => document.querySelectorAll('.clips video').length === 2")
    page.wait_for_timeout(1000)
    page.screenshot(path=folder / "label_admin.png")
    page.goto(address + "/live")
    page.locator(".cursor").wait_for(state="attached")
    page.wait_for_timeout(1500)
    page.screenshot(path=folder / "label_live.png", full_page=True)


def main(folder: Path, like: Path) -> None:
    """Everything that is needed, and the pictures."""
    clips = [cheetah(seed)[0] for seed in range(6)]
    with tempfile.TemporaryDirectory() as scratch, EmbeddedRedis(Path(scratch) / "redis") as redis:
        asking = Asking(
            redis.url,
            name="cheetah",
            strength="yes",
            instruction=loading.load(ROOT / "configs" / "halfcheetah.yaml").labels.instruction,
            budget="80",
            segments="120",
            segments_wanted="500",
        )
        for number in range(45):
            asking.ask(1, clips=(clips[number % 5], clips[number % 5 + 1]))
        labelers = asking.queue.accounts
        tokens = [labelers.add(name, admin=name == "ann") for name in LABELERS]
        answered_by_others(asking)
        served = Served(str(run_directory(Path(scratch), asking, like=like).path))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS
            )
            take(browser.new_page(viewport=DESK), served.address, tokens[0], folder)
            browser.close()
        served.stop()
        asking.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
