"""Two arms of one config: trained on preferences, and, same code, steps and seed, on
the env reward.

The figure is F = (R_pref - R_random) / (R_true - R_random): the share of the control
arm's gain that was learned without ever seeing the reward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rlhp import program
from rlhp.config.schema import RunConfig
from rlhp.errors import RlhpError
from rlhp.monitor.plots import plot
from rlhp.run.preflight import check
from rlhp.run.summary import Summary
from rlhp.storage.rundir import RunDir


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Both arms, and the plots that show them together."""

    preferences: Summary
    control: Summary
    plots: list[str]

    @property
    def recovered(self) -> float | None:
        """F; None where the control arm gained nothing over the random policy."""
        gain = self.control.true_return - self.control.random_return
        return (
            (self.preferences.true_return - self.preferences.random_return) / gain
            if gain > 0
            else None
        )

    def __str__(self) -> str:
        ours, control = self.preferences, self.control
        seconds = ours.wall_seconds + control.wall_seconds
        share = "undefined: the control arm did not beat the random policy"
        if self.recovered is not None:
            share = (
                f"{self.recovered:.2f} of the control arm's gain, from {ours.labels_answered} "
                "answers"
            )
        rows = [
            ("", "true return", ""),
            ("random policy", f"{ours.random_return:.1f}", ""),
            (
                "trained on preferences",
                f"{ours.true_return:.1f}",
                f"{ours.env_steps:,} steps, the reward unseen",
            ),
            (
                "trained on the env reward",
                f"{control.true_return:.1f}",
                f"{control.env_steps:,} steps, control arm",
            ),
        ]
        lines = [f"{name:<26} {value:>12}  {note}".rstrip() for name, value, note in rows]
        lines.append(f"{'recovered':<26} {share}")
        lines.append(f"{'training time':<26} {seconds:.0f} s for both, one seed ({ours.seed})")
        lines += [f"{'plot':<26} {path}" for path in self.plots]
        return "\n".join(lines)


def _arms(config: RunConfig) -> dict[str, RunConfig]:
    if not config.preferences:
        raise RlhpError(
            "compare adds the control arm by itself, got labels.source=none; set "
            "labels.source=oracle"
        )
    arms = {}
    for kind, source in (("preferences", config.labels.source), ("control", "none")):
        labels = config.labels.model_copy(update={"source": source})
        name = None if config.name is None else f"{config.name}-{kind}"
        arms[kind] = config.model_copy(update={"labels": labels, "name": name})
    return arms


def compare(
    config: RunConfig, *, config_name: str, say: Callable[[str], None] = print
) -> Comparison | None:
    """Train both arms, one after the other; None where the first was stopped by Ctrl-C."""
    arms = _arms(config)
    for arm in arms.values():
        check(arm)  # before the first directory and the first hour
    summaries = []
    for kind, arm in arms.items():
        rundir = RunDir.create(arm, f"{config_name}-{kind}")
        what = (
            "the env reward (control arm)"
            if kind == "control"
            else f"preferences ({config.labels.budget} labels)"
        )
        say(f"\ntraining on {what}: {rundir.path}")
        summary = program.train(rundir.config(), rundir=rundir)
        if summary.interrupted:
            say(str(summary))
            return None
        summaries.append(summary)
    ours, control = summaries
    together = Path(ours.run) / "plots" / "both_arms"
    plots = [str(path) for path in plot([Path(ours.run), Path(control.run)], out=together)]
    return Comparison(preferences=ours, control=control, plots=plots)
