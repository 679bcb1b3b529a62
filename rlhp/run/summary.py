"""What a run reached: the returns of the random and of the trained policy, the labels
that it took, and where its plots and its video are.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhp.files import write_whole
from rlhp.learn.evaluate import evaluate, random_act
from rlhp.monitor.rows import RunStatus
from rlhp.preferences.answers import answered, settle
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.reward.versions import RewardStore
from rlhp.run.loop import Loop
from rlhp.storage.rundir import RunDir


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The end of a run, also in `summary.json`."""

    run: str
    source: str
    seed: int
    env_steps: int
    iterations: int
    """Learner updates: 0 where the run ended in its warm-up."""
    wall_seconds: float
    random_return: float
    """Mean true return of uniform actions."""
    true_return: float
    """Mean true return of the final policy."""
    true_return_std: float
    """Over its evaluation episodes."""
    episodes: int
    labels_asked: int
    labels_answered: int
    labels_budget: int
    reward_version: int
    interrupted: bool
    plots: list[str]
    video: str | None
    """Of the final policy; None where the environment cannot be drawn, or the run was
    stopped.
    """

    def __str__(self) -> str:
        ended = "stopped" if self.interrupted else "finished"
        policy = "trained policy" if self.iterations else "untrained policy"
        lines = [
            f"{ended} after {self.env_steps:,} env steps in {self.wall_seconds:.0f} s",
            f"true return: random policy {self.random_return:.1f}, {policy} {self.true_return:.1f} "
            f"(+- {self.true_return_std:.1f} over {self.episodes} episodes)",
        ]
        if not self.iterations and not self.interrupted:
            lines.append(
                f"warning: the policy was never trained: all {self.env_steps:,} env steps went "
                "into the warm-up; give more learner.total_env_steps, or a smaller "
                "labels.initial_share or labels.budget"
            )
        if self.source != "none":
            lines.append(
                f"labels: {self.labels_answered} of {self.labels_budget} answers, reward version "
                f"{self.reward_version}"
            )
        lines += [f"plot: {plot}" for plot in self.plots]
        if self.video is not None:
            lines.append(f"video of the policy: {self.video}")
        lines.append(f"run directory: {self.run}")
        if self.interrupted:
            lines.append(f"continue with: rlhp train --resume {self.run}")
        return "\n".join(lines)


def finish(loop: Loop, *, interrupted: bool) -> Summary:
    """Evaluate the final policy and the random one, draw the curves, write
    `summary.json`.
    """
    config = loop.config
    seed = 1_000_003 + config.seed
    trained = loop.evaluate(seed=seed)
    by_chance = evaluate(random_act, config.env, episodes=config.evaluation.episodes, seed=seed)
    video = None if interrupted else loop.record_video(wait=True)
    status = loop.services.status() if loop.services is not None else RunStatus()
    trainer, queue = status.reward_trainer, status.queue
    stored, newest = _on_disk(loop.rundir)
    count = max(0 if trainer is None else trainer.answered, stored)
    summary = Summary(
        run=str(loop.rundir.path),
        source=config.labels.source,
        seed=config.seed,
        env_steps=loop.progress.env_steps,
        iterations=loop.progress.iteration,
        wall_seconds=loop.progress.wall_seconds,
        random_return=by_chance.mean,
        true_return=trained.mean,
        true_return_std=trained.std,
        episodes=len(trained.returns),
        # the queue was looked at a moment before
        labels_asked=max(0 if queue is None else queue.asked, count),
        labels_answered=count,
        labels_budget=config.labels.budget,
        reward_version=max(0 if trainer is None else trainer.version, newest),
        interrupted=interrupted,
        plots=[str(path) for path in _draw(loop)],
        video=None if video is None else str(video),
    )
    write_whole(loop.rundir.path / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
    return summary


def _on_disk(rundir: RunDir) -> tuple[int, int]:
    """Answered queries and the newest reward version: what roles said last is of a
    moment before, or nothing yet.
    """
    if not (rundir.preferences / "dataset.json").exists():
        return 0, 0
    dataset = PreferenceDataset.open(rundir.preferences, compacting=False)
    return answered(settle(dataset.live())), RewardStore(rundir.path / "reward").newest_number()


def _draw(loop: Loop) -> list[Path]:
    # matplotlib is half a second that a run should not begin with
    from rlhp.monitor.plots import plot

    loop.metrics.close()
    return list(plot([loop.rundir.path]))
