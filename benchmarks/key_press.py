"""From a key press to the first frame of the next clip, in a real Chromium: the
labeling page fetches ahead.

    python -m benchmarks.key_press

Clips are 240 x 240 pixels of a pattern that drifts, 45 frames each. The clock is the
browser's: from the `keydown` event to the frame that `requestVideoFrameCallback` tells
of.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.report import rows
from rlhp.labeling.clips.video import encode
from rlhp.queue.clips import SIDES
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue

NAME = "key_press"
ANSWERS = 200
TARGET_MS = 150.0
KEYS = ("ArrowLeft", "ArrowRight", "ArrowUp")
WATCH = """
() => {
  window.waits = [];
  let pressed = null;
  addEventListener("keydown", () => (pressed = performance.now()), true);
  const seen = () => {
    if (pressed !== null) window.waits.push(performance.now() - pressed);
    pressed = null;
  };
  document.addEventListener("playing",
    ({ target }) => target.requestVideoFrameCallback(seen), true);
}
"""
READY = """
() => document.body.dataset.seen && document.body.dataset.seen === document.body.dataset.query
  && document.querySelectorAll("video[src]").length === 4
"""


def clip(seed: int, *, frames: int = 45, size: int = 240) -> bytes:
    """A coarse pattern that drifts."""
    coarse = (
        np.random.default_rng(seed).integers(0, 255, (12, 12, 3), np.uint8).repeat(size // 12, 0)
    )
    picture = coarse.repeat(size // 12, 1)
    return encode(
        np.stack([np.roll(picture, 3 * frame, axis=1) for frame in range(frames)]), fps=30
    )


def ask(url: str, queue: QueryQueue) -> int:
    """Queries with clips; bytes of one clip."""
    clips, films = queue.clips, [clip(seed) for seed in range(6)]
    for number in range(ANSWERS + 2):
        name = f"q{number}"
        queue.put(
            query=name, candidates=(f"{name}-a", f"{name}-b"), body={}, payloads={}, ready=False
        )
        for at, side in enumerate(SIDES):
            clips.store(query=name, side=side, data=films[(number + at) % len(films)])
        queue.ready(query=name)
    return len(films[0])


def press(page: Page) -> list[float]:
    """Answer everything, each as soon as the next clips lie ready; milliseconds."""
    page.wait_for_function(READY)
    page.evaluate(WATCH)
    for number in range(ANSWERS):
        page.wait_for_function(READY)
        page.keyboard.press(KEYS[number % len(KEYS)])
        page.wait_for_function("(count) => window.waits.length > count", arg=number)
    waits: list[float] = page.evaluate("() => window.waits")
    return waits


def measure() -> dict[str, Any]:
    """A queue, a server, a browser: the row."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        EmbeddedRedis(Path(scratch) / "redis") as redis,
        QueryQueue(redis.url, run="keys") as queue,
    ):
        queue.open(cap=2 * ANSWERS, config_sha256="keys", info={"source": "human"})
        size = ask(redis.url, queue)
        command = [
            sys.executable,
            "-m",
            "rlhp",
            "serve",
            "--redis",
            redis.url,
            "--run",
            "keys",
            "--port",
            "0",
        ]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
            sync_playwright() as playwright,
        ):
            assert server.stdout is not None
            path = os.environ.get("RLHP_CHROMIUM") or shutil.which("chromium")
            browser = playwright.chromium.launch(
                executable_path=path, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page()
            page.goto(server.stdout.readline().split(": ", 1)[1].strip())
            waits = press(page)
            browser.close()
            server.terminate()
    cuts = statistics.quantiles(waits, n=20)
    load = round(os.getloadavg()[0], 1)
    return {
        "answers": len(waits),
        "kilobytes": size / 1000,
        "p50_ms": cuts[9],
        "p95_ms": cuts[18],
        "load": load,
    }


def section() -> str:
    """The newest row in words, for the report."""
    row = rows.read(NAME)[-1]
    verdict = "met" if row["p50_ms"] <= TARGET_MS else "missed"
    return (
        "## From a key press to the next clip\n\n    python -m benchmarks.key_press\n\n"
        f"{row['answers']} answers in a headless Chromium, server and Redis beside it, clips of "
        f"{row['kilobytes']:.0f} kB: the next pair plays after {row['p50_ms']:.0f} ms (median; 95 "
        "% within "
        f"{row['p95_ms']:.0f} ms), by the browser's clock. The aim of {TARGET_MS:.0f} ms is "
        f"{verdict}. "
        f"Load average of the machine: {row['load']:.0f}.\n\n"
        f"Commit {row['commit']}. Machine: {row['machine']}.\n"
    )


def main() -> None:
    """Command line."""
    rows.append(NAME, measure())
    print(section())


if __name__ == "__main__":
    main()
