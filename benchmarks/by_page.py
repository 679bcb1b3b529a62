"""Is a run answered at the page, by eye and key, as good as one that a teacher answers?

    python -m benchmarks.by_page  # five runs of configs/pendulum.yaml, labels.source=human

Each is `rlhp train` as a person would start it. The person is a script at a real
Chromium: it sees the two clips that the page fetched and nothing else of the run, finds
the pole in their pixels, sums up how far from upright it was and how fast it turned,
and presses an arrow. Time is compressed by ten: people take some 3.5 seconds per
answer, the script a tenth of that, and the pendulum some two milliseconds per step, or
76,000 steps would be over before 200 answers. The oracle's rows are those of
`benchmarks.learning --suite headline`: same task, seeds and budget, with a teacher that
is told the env reward.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from playwright.sync_api import Browser, Error, Page, Route, sync_playwright

from benchmarks.report import rows, tables
from benchmarks.report.intervals import recovered, told
from benchmarks.rig.suites import CONFIGS, CONTROL, EPISODES
from rlhp.types import Array

NAME = "by_page"
TASK = "pendulum"
SEEDS = 5
ANSWER_SECONDS = 0.35
"""A tenth of a person's."""
LARGE_STEPS = (
    "learner.train_batch_size=2048",
    "learner.minibatch_size=256",
    "learner.num_epochs=10",
    "learner.lr=1.5e-3",
    "reward.label_uses_per_step=0.5",
    "reward.max_lag_steps=null",
    "query.pool=1000",
)
"""Few and large steps of the optimizer, which leave a core to the browser. The rows are
older than the pool of 300.
"""
SLOW_SECONDS = 0.0018
"""Of the wall that an env step takes at least."""
STEP_SECONDS = 0.05
"""Of Pendulum-v1, a frame each."""
CLEAR = 0.02
"""Share of the worse clip's cost by which the other has to be better; below it they are
equally good.
"""
FLAGS = ["--no-sandbox", "--disable-gpu"]


def cost(clip: bytes) -> float:
    """How badly the pendulum stands in this clip, from its pixels: squared angle and
    0.1 of squared speed, summed.
    """
    with av.open(io.BytesIO(clip), "r") as video:
        angles = np.unwrap(
            [angle(frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]
        )
    nearest = (angles + np.pi) % (2 * np.pi) - np.pi
    speeds = np.diff(angles) / STEP_SECONDS
    return float((nearest**2).sum() + 0.1 * (speeds**2).sum())


def angle(frame: Array) -> float:
    """Of the red pole in one frame, from upright."""
    red = frame.astype(int)
    rows_, columns = np.nonzero((red[..., 0] - red[..., 1] > 60) & (red[..., 0] - red[..., 2] > 60))
    middle = (frame.shape[0] - 1) / 2
    return float(np.arctan2(columns.mean() - middle, middle - rows_.mean()))


def judged(left: bytes, right: bytes) -> str:
    """The key of the better clip."""
    costs = cost(left), cost(right)
    if abs(costs[0] - costs[1]) <= CLEAR * max(costs):
        return "ArrowUp"
    return "ArrowLeft" if costs[0] < costs[1] else "ArrowRight"


@dataclass
class Person:
    """Somebody at the page of one run."""

    page: Page
    clips: dict[str, bytes] = field(default_factory=dict)
    pressed: dict[str, int] = field(default_factory=dict)

    def sit_down(self, address: str) -> None:
        """Open the page, and see the clips that it fetches."""
        self.page.route("**/api/clips/**", self._see)
        self.page.goto(address)

    def _see(self, route: Route) -> None:
        reply = route.fetch()
        self.clips[route.request.url.split("/api/clips/")[1]] = reply.body()
        route.fulfill(response=reply)

    def answer(self) -> None:
        """Judge what is on stage and press its key; returns without, where nothing is
        for a while.
        """
        try:
            shown = self.page.wait_for_function(
                "() => document.body.dataset.stage === 'playing' && document.body.dataset.seen "
                "=== document.body.dataset.query && document.body.dataset.query",
                timeout=2000,
            )
        except Error:
            # a page nobody touches sleeps
            self.page.mouse.move(*np.random.default_rng().integers(1, 99, 2).tolist())
            return
        query, began = str(shown.json_value()), time.monotonic()
        key = judged(self.clips.pop(f"{query}/left"), self.clips.pop(f"{query}/right"))
        self.page.wait_for_timeout(max(0.0, 1000 * (began + ANSWER_SECONDS - time.monotonic())))
        self.page.keyboard.press(key)
        self.pressed[key] = self.pressed.get(key, 0) + 1


@contextmanager
def run(seed: int) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A run that waits for people: the process, the address of its page, and its output
    so far.
    """
    settings = (
        "labels.source=human", "page.port=0", f"seed={seed}", f"evaluation.episodes={EPISODES}",
        "clips.policy_seconds=0", "env.id=benchmarks.chaos:SlowPendulum",
        f"env.kwargs={{step_seconds: {SLOW_SECONDS}}}", *LARGE_STEPS,
    )  # fmt: skip
    sets = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "benchmarks.rig.one_run", str(CONFIGS / f"{TASK}.yaml"), *sets]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said: list[str] = []
        try:
            while not (found := re.search(r"label at (http://\S+)", said[-1] if said else "")):
                line = process.stdout.readline()
                assert line, "".join(said)
                said.append(line)
            reader = threading.Thread(target=said.extend, args=(process.stdout,))
            reader.start()
            yield process, found[1], said
            reader.join()
        finally:
            process.terminate()


def measure(seed: int, browser: Browser) -> dict[str, Any]:
    """One run, answered to its end."""
    with run(seed) as (process, address, said):
        person = Person(browser.new_page())
        person.sit_down(address)
        while process.poll() is None:
            person.answer()
        person.page.close()
    if process.returncode:
        raise ChildProcessError("".join(said[-20:]))
    figures = json.loads(said[-1])
    return {
        "task": TASK,
        "seed": seed,
        "answer_seconds": ANSWER_SECONDS,
        "pressed": person.pressed,
        **figures,
    }


def section() -> str:
    """The table for docs/benchmarks.md."""
    found = [row for row in rows.read(NAME) if row["task"] == TASK]
    arms = {arm: tables.older("headline", TASK, arm) for arm in ("preferences", CONTROL)}
    chance, control = tables.by_chance(arms), tables.returns(arms[CONTROL])
    oracle = recovered(tables.returns(arms["preferences"]), control, chance)
    page = recovered(tables.returns(found), control, chance)
    place = "inside" if oracle[1] <= page[0] <= oracle[2] else "outside"
    lines = [
        "## Answered at the page",
        "",
        "    python -m benchmarks.by_page",
        "",
        f"`rlhp train configs/{TASK}.yaml --set labels.source=human`, answered in a Chromium by a "
        f"script that judges the pixels of the two clips and presses a key {ANSWER_SECONDS:g} s "
        "after it first saw them: a tenth of a person's 3.5 s, beside a pendulum that takes "
        f"{1000 * SLOW_SECONDS:g} ms for a step and a learner that takes few and large ones "
        "(`LARGE_STEPS`). The oracle is told the env reward and answers beside a pendulum that "
        "takes none; its rows, and those of the env reward's arm that F is measured by, are "
        "those of `--suite headline`.",
        "",
        "| who answers | seeds | answers | true return of each seed | F (95 %) |",
        "|---|---|---|---|---|",
        _line("a script at the page", found, told(page)),
        _line("the oracle", arms["preferences"], told(oracle)),
        "",
        f"F at the page lies {place} the interval of the oracle's.",
        "",
        tables.made(found),
    ]
    return "\n".join(lines)


def _line(who: str, some: list[dict[str, Any]], told_f: str) -> str:
    returns = ", ".join(f"{value:.0f}" for value in tables.returns(some))
    labels = np.mean([row["labels"] for row in some])
    return f"| {who} | {len(some)} | {labels:.0f} | {returns} | {told_f} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = parser.parse_args().seeds
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("RLHP_CHROMIUM") or shutil.which("chromium"), args=FLAGS
        )
        for seed in range(seeds):
            if not rows.done(NAME, {"task": TASK, "seed": seed}):
                row = measure(seed, browser)
                rows.append(NAME, row)
                print(row, flush=True)
        browser.close()


if __name__ == "__main__":
    main()
