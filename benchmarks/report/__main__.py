"""Draws docs/benchmarks.md and its plots from the rows in benchmarks/results: `python
-m benchmarks.report`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import (
    atari_memory,
    by_page,
    chaos,
    cost,
    games,
    key_press,
    labelers,
    micro,
    novel,
    pixel_speed,
    pixels,
    pong,
    rendering,
    resume_trials,
    sampling,
    scale,
    side_by_side,
    unseen,
)
from benchmarks.report import control_plane_tables, plots, reward_alone_tables, rows, tables
from benchmarks.rig.suites import CONTROL

DOCS = Path(__file__).parents[2] / "docs"
IMAGES = DOCS / "images"

HEAD = """# Benchmarks

Every figure here was measured by the command above its table; the rows it is drawn from are in
`benchmarks/results/*.jsonl`, with seed, config hash, commit and machine. `make bench` runs what is
missing and writes this page anew; `make bench-quick` runs a small part of every bench. Aims that
are missed, and what was tried: [aims.md](aims.md). Rows of commits before 94972a1 were measured
with the defaults and config files of then.
"""

SECTIONS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("unseen-dev", partial(unseen.section, "unseen-dev")),
    ("unseen-test", partial(unseen.section, "unseen-test")),
    ("headline", tables.headline),
    ("side_by_side", side_by_side.section),
    ("mujoco", tables.mujoco),
    ("pixels", pixels.section),
    ("pong", pong.section),
    ("atari_memory", atari_memory.section),
    ("pixel_speed", pixel_speed.section),
    ("ablations", tables.ablations),
    ("teachers", tables.teachers),
    ("reward_alone", reward_alone_tables.section),
    ("cost", cost.section),
    ("sampling", sampling.section),
    ("games", games.section),
    ("micro", micro.section),
    ("control_plane", control_plane_tables.section),
    ("novel", novel.section),
    ("rendering", rendering.section),
    ("by_page", by_page.section),
    ("key_press", key_press.section),
    ("labelers", labelers.section),
    ("resume", resume_trials.section),
    ("chaos", chaos.section),
    ("scale", scale.section),
)
"""Name of the rows, and what draws them; one without rows is left out."""

PICTURES: dict[str, tuple[tuple[str, str, Callable[[Path], bool]], ...]] = {
    "mujoco": (
        ("bench_labels.png", "F over labels, one line per task", plots.by_labels),
        (
            "bench_curves.png",
            "True return over env steps, by task and labels",
            plots.learning_curves,
        ),
    ),
    "pixels": (
        (
            "bench_pixels.png",
            "True return over env steps from pixels, both arms",
            partial(plots.learning_curves, suite="pixels"),
        ),
    ),
    "pong": (("bench_pong.png", "Scores of both arms, true and predicted return", pong.plot),),
    "atari_memory": (
        ("bench_memory.png", "Memory of each role over an hour of Atari", atari_memory.plot),
    ),
    "ablations": (
        (
            "bench_ablations.png",
            "F without parts of the method",
            partial(plots.bars, "ablations", perfect=CONTROL),
        ),
    ),
    "novel": (
        ("backflip.png", "Best backflip episode, every tenth step", Path.exists),
        ("one_leg.png", "Best one-legged episode, every second step", Path.exists),
    ),
    "reward_alone": (
        ("bench_reward_alone.png", "Held-out accuracy over pairs", reward_alone_tables.plot),
    ),
    "teachers": (
        (
            "bench_teachers.png",
            "Share of the oracle's gain",
            partial(plots.bars, "teachers", perfect="oracle"),
        ),
    ),
}


def main() -> None:
    """Write the page from whatever has run."""
    parts = [HEAD]
    for name, section in SECTIONS:
        if not rows.read(name):
            continue
        parts.append(section())
        for file, words, draw in PICTURES.get(name, ()):
            if draw(IMAGES / file):
                parts.append(f"![{words}](images/{file})")
    page = DOCS / "benchmarks.md"
    page.write_text("\n".join(part.strip("\n") + "\n" for part in parts), encoding="utf-8")
    print(f"wrote {page}")


if __name__ == "__main__":
    main()
