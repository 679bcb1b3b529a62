"""What a run shows while it goes on: one live table on a terminal, a plain line every
few seconds elsewhere.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlhp.config.schema import RunConfig
from rlhp.monitor.diagnosis import duration
from rlhp.storage.rundir import RunDir

_BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_ASCII_BARS = "_.-=+*%#"
_SPARKS = 40


class LiveTable:
    """Shows the newest metrics of one run; the names are those of
    `rlhp.storage.metrics.METRICS`.

    with LiveTable(name="halfcheetah", total_env_steps=300_000) as live:
        live.update({"env_steps": 2048, "phase": "warm-up"})
        live.message("reward version 1 is out")
    """

    def __init__(
        self,
        *,
        config: RunConfig,
        rundir: RunDir,
        console: Console | None = None,
        every_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = rundir.name
        self._total = config.learner.total_env_steps
        self._console = console if console is not None else Console()
        self._every = every_seconds
        self._clock = clock
        self._printed = -math.inf
        self._row: dict[str, Any] = {}
        self._returns: deque[float] = deque(maxlen=_SPARKS)
        self._changed = False
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._table, refresh_per_second=2
            )
            self._live.start()

    def update(self, row: Mapping[str, Any]) -> None:
        """Take over a row; a value that is missing or None keeps the one before."""
        self._row |= {name: value for name, value in row.items() if value is not None}
        value = row.get("env_runners/episode_return_mean")
        if value is not None and math.isfinite(value):
            self._returns.append(float(value))
        self._changed = True
        if self._live is None and self._clock() - self._printed >= self._every:
            self._print_line()

    def message(self, text: str) -> None:
        """One line for the reader, above the table."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Show the last state for good."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._changed:
            self._print_line()
        self._changed = False

    def __enter__(self) -> LiveTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _print_line(self) -> None:
        self._printed = self._clock()
        self._changed = False
        self._console.print(
            line(self._row, total_env_steps=self._total),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def _table(self) -> Table:
        row = self._row
        table = Table(
            title=self._name,
            title_justify="left",
            show_header=False,
            box=None,
            padding=(0, 2, 0, 0),
        )
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        steps = row.get("env_steps", 0)
        table.add_row(
            "", ProgressBar(total=self._total, completed=min(steps, self._total), width=48)
        )
        rate = row.get("env_steps_per_second")
        speed = f", {rate:,.0f} steps/s" if rate is not None else ""
        table.add_row(
            "env steps",
            f"{steps:,} of {self._total:,}{speed}, {eta(row, total_env_steps=self._total)}",
        )
        table.add_row("phase", str(row.get("phase", "starting")))
        if "labels/asked" in row:
            table.add_row("labels", _labels(row))
            table.add_row("queue", _queue(row))
            table.add_row("reward model", _reward(row))
            if (accuracy := fresh(row)) is not None:
                table.add_row("fresh accuracy", accuracy)
            if (held := waiting(row)) is not None:
                table.add_row("learner", held)
            if row.get("alarms"):
                table.add_row("alarms", Text(str(row.get("alarms/names")), style="bold red"))
        bars = _ASCII_BARS if self._console.options.ascii_only else _BARS
        returns = Text(f"{_number(row.get('env_runners/episode_return_mean'))}  ")
        returns.append(sparkline(list(self._returns), bars=bars), style="cyan")
        table.add_row("true return", returns)
        if "predicted_return_mean" in row:
            table.add_row("predicted return", _number(row.get("predicted_return_mean")))
        return table


def line(row: Mapping[str, Any], *, total_env_steps: int) -> str:
    """What the table shows, on one line, for a log."""
    parts = [f"{row.get('env_steps', 0):,}/{total_env_steps:,} steps"]
    if (rate := row.get("env_steps_per_second")) is not None:
        parts.append(f"{rate:,.0f}/s")
    parts.append(str(row.get("phase", "starting")))
    if "labels/asked" in row:
        parts += [f"labels: {_labels(row)}", f"queue: {_queue(row)}", f"reward: {_reward(row)}"]
        if (accuracy := fresh(row)) is not None:
            parts.append(f"fresh accuracy: {accuracy}")
        if (held := waiting(row)) is not None:
            parts.append(held)
        if row.get("alarms"):
            parts.append(f"ALARMS: {row.get('alarms/names')}")
    parts.append(f"true return {_number(row.get('env_runners/episode_return_mean'))}")
    if "predicted_return_mean" in row:
        parts.append(f"predicted {_number(row.get('predicted_return_mean'))}")
    return " | ".join([*parts, eta(row, total_env_steps=total_env_steps)])


def eta(row: Mapping[str, Any], *, total_env_steps: int) -> str:
    """Time left at the present speed."""
    rate = row.get("env_steps_per_second") or 0.0
    left = max(0, total_env_steps - row.get("env_steps", 0))
    return f"{duration(left / rate)} left" if rate > 0 else "time left unknown"


def sparkline(values: list[float], *, bars: str = _BARS) -> str:
    """One character per value, the lowest as the first of `bars`, the highest as the
    last.
    """
    if not values:
        return ""
    low, high = min(values), max(values)
    span = high - low
    return "".join(
        bars[round((value - low) / span * (len(bars) - 1)) if span else 0] for value in values
    )


def _labels(row: Mapping[str, Any]) -> str:
    answered = int(row.get("labels/answered", 0))
    asked = max(int(row["labels/asked"]), answered)  # the queue was looked at a moment before
    text = f"{answered} answered, {asked} asked of {row.get('labels/budget', '?')}"
    rate = row.get("labels/per_minute")
    return text if rate is None else f"{text}, {rate:.1f}/min"


def _queue(row: Mapping[str, Any]) -> str:
    waiting, leased = row.get("queue/pending", 0), row.get("queue/leased", 0)
    if not waiting and not leased:
        return "empty"
    age = row.get("queue/oldest_age_seconds")
    text = f"{waiting} waiting, {leased} leased"
    return text if age is None else f"{text}, oldest {duration(age)}"


def _reward(row: Mapping[str, Any]) -> str:
    version = row.get("reward/version") or 0
    if not version:
        return "none yet"
    parts = [f"version {version}"]
    if row.get("return_correlation") is not None:
        parts.append(f"correlation {row['return_correlation']:.2f}")
    return ", ".join(parts)


def fresh(row: Mapping[str, Any]) -> str | None:
    """Fresh accuracy with its interval, and the answers that say nothing; None before
    the first predicted answer.
    """
    recent = int(row.get("labels/recent") or 0)
    undecided = [
        f"{count} {word}"
        for name, word in (("ties", "ties"), ("incomparable", "incomparable"))
        if (count := int(row.get(f"labels/recent_{name}") or 0))
    ]
    beside = f"; {', '.join(undecided)} in {recent}" if undecided else ""
    accuracy, asked = row.get("reward/fresh_accuracy"), row.get("reward/fresh_answers")
    if accuracy is None:
        return f"nothing predicted yet{beside}" if beside else None
    low, high = (
        row.get("reward/fresh_accuracy_low", 0.0),
        row.get("reward/fresh_accuracy_high", 1.0),
    )
    return f"{accuracy:.2f} ({low:.2f} to {high:.2f}, {asked} answers){beside}"


def waiting(row: Mapping[str, Any]) -> str | None:
    """The share of the last iteration in which the learner waited for the reward; None
    where it did not wait.
    """
    held = row.get("reward/wait_seconds") or 0.0
    rest = sum(row.get(f"time/{part}_seconds") or 0.0 for part in ("sample", "learn"))
    share = held / (held + rest) if held + rest > 0 else 0.0
    return f"waits for the reward {share:.0%} of the time" if share >= 0.01 else None


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"
