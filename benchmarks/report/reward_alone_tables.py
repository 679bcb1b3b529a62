"""The section on the reward model alone: table, verdicts and plot, from the rows that
were measured so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.report import rows, tables

NAME = "reward_alone"
COUNTS = (50, 200, 700, 1400)
FLIPPED = (0.0, 0.1, 0.3)
OURS = {"rlhp": 0, "stopped": 10}
"""System -> `reward.early_stop_epochs`."""
THEIRS = ("ensemble", "basic")
SYSTEMS = (*OURS, *THEIRS)
NAMES = {
    "rlhp": "rlhp",
    "stopped": "rlhp, stopped early",
    "ensemble": "imitation ensemble",
    "basic": "imitation basic",
}
FASTER = 10.0
"""imitation's ensemble's fitting seconds over rlhp's: the aim."""
STYLES = {
    "rlhp": "o-#0072B2",
    "stopped": "D-#56B4E9",
    "ensemble": "s--#D55E00",
    "basic": "^:#009E73",
}

Row = dict[str, Any]
Place = tuple[str, str, int, float]
"""Task, system, pairs, share of wrong answers."""
Cells = dict[Place, list[Row]]  # one row per seed


def newest(found: Sequence[Row]) -> Cells:
    """One row per seed in every cell: those measured last, and of each task on the
    newest episodes alone.

    Pairs from other episodes are other pairs, easier or harder.
    """
    cells: dict[Place, dict[int, Row]] = {}
    episodes = {row["task"]: row.get("episodes_sha256") for row in found}
    for row in (row for row in found if row.get("episodes_sha256") == episodes[row["task"]]):
        place = (row["task"], row["system"], row["pairs"], row["flipped"])
        cells.setdefault(place, {})[row["seed"]] = row
    return {place: [row for _, row in sorted(seeds.items())] for place, seeds in cells.items()}


def section(found: Sequence[Row] | None = None) -> str:
    """The page's table and verdicts, from the rows measured so far; empty without any."""
    found = rows.read(NAME) if found is None else found
    if not found:
        return ""
    cells = newest(found)
    passes = ", ".join(sorted({str(row["epochs"]) for row in found}))
    lines = [
        "## The reward model alone",
        "",
        "    python -m benchmarks.reward_alone",
        "",
        "The same stored pairs of segments (half of the episodes by a random policy, half by a "
        "half-trained one; HalfCheetah with episodes of 300 steps) given to our fitter and to "
        f"imitation 1.0.1's reward trainers. Equal passes over the pairs ({passes}; *stopped "
        "early*: ten after the best held-out loss), 3 members in every ensemble, one net in "
        "*basic*; else each system's defaults, with our error rate for imitation too. Accuracy "
        "on 1,000 held-out pairs from other episodes, ties left out; correlation of predicted "
        "with true rewards, per step and per segment. Seconds are the processor's, one thread "
        "each.",
        "",
        "| task | pairs | wrong answers | system | seeds | accuracy | correlation, steps | "
        "segments | fit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = sorted(cells, key=lambda place: (place[0], place[2], place[3], SYSTEMS.index(place[1])))
    lines += [_line(place, cells[place]) for place in order]
    shown = [row for seeds in cells.values() for row in seeds]
    made = [tables.made(shown)] if all("machine" in row for row in shown) else []
    return "\n".join([*lines, "", *_verdicts(cells), "", *made])


def _line(place: Place, seeds: list[Row]) -> str:
    task, system, count, flipped = place
    return (
        f"| {task} | {count} | {flipped:.0%} | {NAMES[system]} | {len(seeds)} | "
        f"{_mean(seeds, 'accuracy'):.3f} | {_mean(seeds, 'reward_correlation'):.2f} | "
        f"{_mean(seeds, 'return_correlation'):.2f} | {_mean(seeds, 'fit_cpu_seconds'):,.2f} s |"
    )


def _verdicts(cells: Cells) -> list[str]:
    """Each of ours beside each of theirs, over all cells that both have."""
    out = []
    for system, peer in product(OURS, THEIRS):
        both = [
            (ours, theirs)
            for (task, name, count, flipped), ours in cells.items()
            if name == system and (theirs := cells.get((task, peer, count, flipped)))
        ]
        if not both:
            continue
        gains = [_mean(ours, "accuracy") - _mean(theirs, "accuracy") for ours, theirs in both]
        times = [
            _mean(theirs, "fit_cpu_seconds") / _mean(ours, "fit_cpu_seconds")
            for ours, theirs in both
        ]
        line = (
            f"- {NAMES[system]} beside {NAMES[peer]}, {len(both)} cells: accuracy "
            f"{np.mean(gains):+.3f} on average, {min(gains):+.3f} to {max(gains):+.3f} (aim: not "
            f"lower, {_met(np.mean(gains) >= 0)}); fitted {median(times):.0f} times as fast, "
            f"{min(times):.0f} to {max(times):.0f}"
        )
        out.append(
            line
            + (f" (aim: {FASTER:g}, {_met(min(times) >= FASTER)})" if peer == "ensemble" else "")
        )
    return out


def _met(reached: Any) -> str:
    return "reached" if reached else "not reached"


def _mean(seeds: Sequence[Row], name: str) -> float:
    return float(np.mean([row[name] for row in seeds]))


def plot(path: Path) -> bool:
    """Held-out accuracy over pairs, one panel per task and share of wrong answers;
    False without rows.
    """
    cells = newest(rows.read(NAME))
    tasks = sorted({place[0] for place in cells})
    if not tasks:
        return False
    from matplotlib.figure import Figure  # half a second that a measurement does without

    figure = Figure(figsize=(3.4 * len(FLIPPED), 2.9 * len(tasks)), layout="constrained")
    grid = figure.subplots(len(tasks), len(FLIPPED), sharex=True, sharey=True, squeeze=False)
    for panels, task in zip(grid, tasks, strict=True):
        for panel, flipped in zip(panels, FLIPPED, strict=True):
            _panel(panel, cells, task=task, flipped=flipped)
        panels[0].set_ylabel("held-out accuracy")
    for panel in grid[-1]:
        panel.set_xlabel("pairs to learn from")
    grid[0, -1].legend(frameon=False, fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return True


def _panel(panel: Any, cells: Cells, *, task: str, flipped: float) -> None:
    for system, style in STYLES.items():
        counts = sorted(
            place[2] for place in cells if (place[0], place[1], place[3]) == (task, system, flipped)
        )
        shares = [_mean(cells[task, system, count, flipped], "accuracy") for count in counts]
        panel.plot(counts, shares, style[:-7], color=style[-7:], label=NAMES[system], markersize=4)
    panel.set_title(f"{task}, {flipped:.0%} wrong answers", loc="left", fontsize=10)
    panel.set_xscale("log")
    panel.set_xticks(COUNTS, [f"{count:,}" for count in COUNTS])
    panel.minorticks_off()
    panel.grid(color="#e5e5e5")
    panel.spines[["top", "right"]].set_visible(False)
