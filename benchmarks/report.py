"""Draws docs/benchmarks.md from the rows in benchmarks/results: `python -m benchmarks.report`."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import rows
from benchmarks.learning import EPISODES, TASKS

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
DRAWS = 10_000

HEAD = """# Benchmarks

Every figure here was measured by the command above its table; the rows it is drawn from are in
`benchmarks/results/*.jsonl`, with seed, config hash, commit and machine. `make bench` runs what is missing
and writes this page anew.
"""


def interval(values: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    means = rng.choice(np.array(values), size=(DRAWS, len(values))).mean(1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def recovered(preferences: list[float], control: list[float], by_chance: float) -> tuple[float, float, float]:
    """F of the means, and its 95 % bootstrap interval over both arms' seeds."""
    rng = np.random.default_rng(0)
    ours = rng.choice(np.array(preferences), size=(DRAWS, len(preferences))).mean(1)
    theirs = rng.choice(np.array(control), size=(DRAWS, len(control))).mean(1)
    draws = (ours - by_chance) / (theirs - by_chance)
    whole = (np.mean(preferences) - by_chance) / (np.mean(control) - by_chance)
    return float(whole), float(np.percentile(draws, 2.5)), float(np.percentile(draws, 97.5))


def learning() -> str:
    """The learning table."""
    newest: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows.read("learning"):
        newest[row["task"], row["arm"]][row["seed"]] = row
    lines = [
        "## Learning from preferences", "", "    python -m benchmarks.learning", "",
        f"True return of the final policy, mean of {EPISODES} episodes with the most likely actions. Env steps count "
        "the warm-up. F = (R_pref - R_random) / (R_true - R_random); intervals are 95 % bootstrap over seeds. "
        "Speeds are measured apart, below: these runs may have shared the machine.", "",
        "| task | arm | seeds | env steps | labels | true return, mean (95 %) | each seed |"
        " held-out accuracy | correlation |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    verdicts = []
    for task in TASKS:
        arms = {arm: list(newest[task, arm].values()) for arm in ("oracle", "none") if (task, arm) in newest}
        for arm, found in arms.items():
            lines.append(_line(task, arm, sorted(found, key=lambda row: int(row["seed"]))))
        if len(arms) == 2:
            by_chance = float(np.mean([row["random_return"] for found in arms.values() for row in found]))
            pair = [[float(row["true_return"]) for row in arms[arm]] for arm in ("oracle", "none")]
            share, low, high = recovered(pair[0], pair[1], by_chance)
            verdicts.append(f"- {task}: F = {share:.2f} ({low:.2f} to {high:.2f}); random policy {by_chance:.1f}")
    return "\n".join([*lines, "", *verdicts, "", _made(rows.read("learning"))])


def _line(task: str, arm: str, found: list[dict[str, Any]]) -> str:
    returns = [float(row["true_return"]) for row in found]
    low, high = interval(returns)
    name = "preferences" if arm == "oracle" else "control"
    steps = max(row["env_steps"] for row in found)
    each = ", ".join(f"{value:.0f}" for value in returns)
    accuracy = [row["heldout_accuracy"] for row in found if row["heldout_accuracy"] is not None]
    correlation = [row["return_correlation"] for row in found if row["return_correlation"] is not None]
    return (
        f"| {task} | {name} | {len(found)} | {steps:,} | {max(row['labels'] for row in found) or '-'} | "
        f"{np.mean(returns):.1f} ({low:.1f} to {high:.1f}) | {each} | "
        f"{f'{np.mean(accuracy):.2f}' if accuracy else '-'} | {f'{np.mean(correlation):.2f}' if correlation else '-'} |"
    )


def throughput() -> str:
    """The cost table."""
    found = rows.read("throughput")
    arms: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        arms[row["arm"]].append(row)
    lines = [
        "## Cost of preferences", "", "    python -m benchmarks.throughput", "",
        "HalfCheetah-v5, 2 env runners x 8 environments, alternating runs; env steps per second while learning "
        "(sampling, labelling, learning), median over iterations, each run.", "",
        "| arm | env steps/s, each run | median | sampling per iteration | wait for predicted rewards |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for arm, name in (("none", "control"), ("oracle", "preferences")):
        speeds = [row["steps_per_second"] for row in arms[arm]]
        waits = [row["label_wait_ms"] for row in arms[arm] if row["label_wait_ms"] is not None]
        lines.append(
            f"| {name} | {', '.join(f'{speed:,.0f}' for speed in speeds)} | {median(speeds):,.0f} | "
            f"{median(row['sample_seconds'] for row in arms[arm]) * 1e3:.0f} ms | "
            f"{f'{median(waits):.1f} ms' if waits else '-'} |"
        )
    ratios = [a["steps_per_second"] / b["steps_per_second"] for a, b in zip(arms["oracle"], arms["none"], strict=True)]
    ratio = (
        f"Preferences / control, pair by pair: {', '.join(f'{r:.2f}' for r in ratios)}; median {median(ratios):.2f}."
    )
    return "\n".join([*lines, "", ratio, "", _made(found)])


def _made(found: list[dict[str, Any]]) -> str:
    commits = ", ".join(sorted({row["commit"] for row in found}))
    machines = "; ".join(sorted({row["machine"] for row in found}))
    return f"Commit {commits}. Machine: {machines}."


def main() -> None:
    """Write the page from whatever has run."""
    parts = [HEAD]
    if rows.read("learning"):
        parts.append(learning())
    if rows.read("throughput"):
        parts.append(throughput())
    PAGE.write_text("\n".join(part + "\n" for part in parts), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
