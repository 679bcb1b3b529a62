"""Metric names, and the rows of `metrics.jsonl`.

A name is an API: it is in this table, it has one meaning, and it is never used again
for another. TensorBoard gets the same numbers under the same names.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhp.errors import RlhpError
from rlhp.files import naming
from rlhp.storage.rundir import RunDir

if TYPE_CHECKING:
    from rlhp.storage.tensorboard import TensorBoard

log = logging.getLogger(__name__)

Value = float | int | str | None

METRICS: dict[str, tuple[str, str]] = {
    "env_steps": ("steps", "Environment steps of the run so far, warm-up included."),
    "iteration": ("count", "Learner iterations so far."),
    "phase": ("text", "`warm-up` until the first reward version, then `learning`."),
    "wall_seconds": ("s", "Time since the run was started, over all resumes."),
    "env_steps_per_second": ("steps/s", "Environment steps per second since the last row."),
    "episodes": ("count", "Episodes finished so far."),
    "env_runners/episode_return_mean": (
        "return",
        "True return: undiscounted sum of env rewards, recent episodes.",
    ),
    "env_runners/game_score_mean": (
        "score",
        "Of recent Atari games, whose ends are hidden: what each paid in all.",
    ),
    "env_runners/episode_len_mean": ("steps", "Length of recent episodes."),
    "env_runners/failures": (
        "count",
        "How often an env runner made its environments anew, the most of any runner.",
    ),
    "predicted_return_mean": ("return", "Undiscounted sum of predicted rewards, same episodes."),
    "return_correlation": (
        "-1 to 1",
        "Pearson correlation of true and predicted return over recent episodes; a new version "
        "makes it dip.",
    ),
    "eval/episode_return_mean": ("return", "True return of the evaluation episodes."),
    "eval/episode_return_std": ("return", "Standard deviation over the evaluation episodes."),
    "labels/asked": ("queries", "Queries asked so far."),
    "labels/answered": ("answers", "Queries with a settled answer so far."),
    "labels/allowed": ("queries", "Queries the schedule allows by now."),
    "labels/budget": ("queries", "Most queries of the whole run."),
    "labels/per_minute": ("answers/min", "Answers per minute, recently."),
    "labels/ties": ("answers", "Answers `tie` so far."),
    "labels/incomparable": ("answers", "Answers `incomparable` so far: stored, never trained on."),
    "queue/pending": ("queries", "Queries waiting for a labeler."),
    "queue/leased": ("queries", "Queries in the hands of a labeler."),
    "queue/oldest_age_seconds": ("s", "Age of the oldest query without an answer."),
    "queue/set_aside": (
        "entries",
        "Entries of the answer log that made no row, so far: see `run.log`.",
    ),
    "queue/refused": (
        "queries",
        "Times that Redis had no memory left for a query, so far: nobody was asked.",
    ),
    "clips/ready": ("queries", "Queries whose clips are there, so far."),
    "clips/dropped": (
        "queries",
        "Queries dropped because a clip of them could not be drawn, so far.",
    ),
    "clips/draw_ms": ("ms", "Drawing one frame, in the newest clip."),
    "clips/encode_ms": ("ms", "Encoding the newest clip."),
    "clips/kilobytes": ("kB", "Size of the newest clip."),
    "segments/offered": ("segments", "Segments offered to the query actor so far."),
    "segments/dropped": ("segments", "Segments dropped because the query actor was busy."),
    "segments/short": (
        "segments",
        "Segments shorter than `query.segment_length`, at an episode's end.",
    ),
    "segments/pool": ("segments", "Candidate segments held now."),
    "segments/warmup_target": (
        "segments",
        "Candidates that the warm-up collects before it only waits for answers.",
    ),
    "reward/version": ("count", "Newest published reward version; 0 before the first."),
    "reward/staleness_steps": (
        "steps",
        "Environment steps since the reward version in use was published.",
    ),
    "reward/wait_seconds": (
        "s",
        "The learner's wait for the reward (`reward.max_lag_steps`), per iteration.",
    ),
    "reward/lag_steps": (
        "steps",
        "Env steps that the reward was behind the policy when an iteration began.",
    ),
    "reward/updates": ("count", "Gradient steps of the ensemble so far."),
    "reward/sees_action": (
        "0 or 1",
        "Whether the newest version depends on the action (`reward.use_action`).",
    ),
    "reward/train_loss": ("nats", "Loss on training preferences, without the penalty."),
    "reward/val_loss": ("nats", "Loss on preferences the member was not trained on."),
    "reward/l2": ("weight", "Weight of the L2 penalty, mean over members."),
    "reward/train_accuracy": ("share", "Training preferences ranked right, ties excluded."),
    "reward/heldout_accuracy": (
        "share",
        "Preferences ranked right by members not trained on them, ties excluded.",
    ),
    "reward/fresh_accuracy": (
        "share",
        "Of the newest answers, those predicted right before the reward learned from them; ties "
        "and `incomparable` left out, and of chosen and random pairs the random ones alone.",
    ),
    "reward/fresh_accuracy_low": ("share", "Lower end of its 95 % interval (Wilson)."),
    "reward/fresh_accuracy_high": ("share", "Upper end of it."),
    "reward/fresh_answers": ("answers", "Decisive answers that it is over, 60 at most."),
    "reward/fresh_accuracy_young": (
        "share",
        "The same of the half of the pairs whose segments were newest when asked.",
    ),
    "reward/fresh_accuracy_old": ("share", "The same of the other half."),
    "reward/novelty": (
        "ratio",
        "Distance of what the policy sees now to the nearest that was asked about, in units of "
        "that among asked segments.",
    ),
    "labels/recent": ("answers", "Newest answers that the two figures below are of, 60 at most."),
    "labels/recent_ties": ("answers", "Ties among them."),
    "labels/recent_incomparable": ("answers", "Answers `incomparable` among them."),
    "alarms": ("count", "Alarms that are raised now: see `rlhp.monitor.alarms`."),
    "alarms/names": ("text", "Their names."),
    "reward/segment_correlation": (
        "-1 to 1",
        "Pearson correlation of env and predicted rewards, summed over segments of the pool under "
        "one reward version; only where env rewards are shared with teachers.",
    ),
    "reward/calibration_error": (
        "share",
        "Mean gap between predicted and observed P(first preferred), held out.",
    ),
    "reward/predicted_mean": ("reward", "Mean predicted reward per step, recently."),
    "reward/predicted_std": ("reward", "Standard deviation of predicted rewards, recently."),
    "reward/predict_wait_ms": (
        "ms",
        "Time an env runner waits for one fragment's predicted rewards.",
    ),
    "reward/predict_us_per_step": ("us", "Time the reward model needs per step."),
    "learner/policy_loss": ("loss", "PPO's clipped policy loss."),
    "learner/vf_loss": ("loss", "Value loss."),
    "learner/entropy": ("nats", "Entropy of the policy."),
    "learner/kl": ("nats", "KL divergence from the policy that sampled."),
    "learner/explained_variance": ("share", "Variance of returns explained by the value function."),
    "memory/learner_mb": (
        "MB",
        "Of the process that runs the learner, without what it shares, as all of these.",
    ),
    "memory/env_runner_mb": ("MB", "Of the env runner that takes most."),
    "memory/reward_model_mb": ("MB", "Of the reward model that takes most."),
    "memory/query_actor_mb": ("MB", "Of the query actor, which holds the candidates."),
    "memory/reward_trainer_mb": ("MB", "Of the reward trainer, which holds what was asked about."),
    "memory/clip_renderer_mb": ("MB", "Of the clip renderer, without the process that draws."),
    "time/sample_seconds": ("s", "Sampling, per iteration."),
    "time/learn_seconds": ("s", "Learner updates, per iteration."),
}
"""Name -> unit, meaning."""


GAUGES = {
    "rlhp_quiet_seconds": "Seconds since an env step, an answer or a reward version.",
    "rlhp_actor_up": "1 where the actor can be spoken to, 0 while it is away.",
    "rlhp_actor_restarts": "How often Ray started the actor again.",
}
"""What is exported to Prometheus beside the metrics; those of actors by actor and node.
"""


def prometheus_name(name: str) -> str:
    """`env_runners/episode_return_mean` as a name that Prometheus takes; Ray puts
    another `ray_` in front.
    """
    return "rlhp_" + name.replace("/", "_")


class MetricsWriter:
    """Appends rows to a run's `metrics.jsonl` and to TensorBoard.

    with MetricsWriter(rundir, tensorboard=True) as metrics:
        metrics.write({"env_steps": 2048, "env_runners/episode_return_mean": -1200.0})
    """

    def __init__(self, rundir: RunDir, *, tensorboard: bool) -> None:
        self._rundir, self._tensorboard = rundir, tensorboard
        with naming(rundir.metrics_file):
            _end_on_a_whole_row(rundir.metrics_file)
        self._unknown: set[str] = set()
        self._open(after=None)

    def _open(self, *, after: int | None) -> None:
        self._file = self._rundir.metrics_file.open("a", encoding="utf-8")
        self._events: TensorBoard | None = None
        if self._tensorboard:
            # half a second of imports that a plain run can do without
            from rlhp.storage.tensorboard import TensorBoard

            # TensorBoard hides what was logged from there on
            purge = None if after is None else after + 1
            self._events = TensorBoard(self._rundir.tensorboard, purge_step=purge)

    def size(self) -> int:
        """Bytes written so far: where a resume cuts back to."""
        with naming(self._rundir.metrics_file):
            self._file.flush()
        return self._rundir.metrics_file.stat().st_size

    def rewind(self, size: int | None, *, env_steps: int) -> int:
        """Cut off the rows after the first `size` bytes (None: those of later env
        steps), of which no policy is left.

        They go to `metrics.undone.jsonl`, and TensorBoard is told to hide them. How
        many there were.
        """
        self.close()
        file = self._rundir.metrics_file
        data = file.read_bytes()
        keep = size if size is not None and data[:size].endswith(b"\n") else _until(data, env_steps)
        undone = data[keep:]
        if undone:
            with (
                naming(self._rundir.undone_metrics_file),
                self._rundir.undone_metrics_file.open("ab") as stream,
            ):
                stream.write(undone)
            with naming(file), file.open("rb+") as stream:
                stream.truncate(keep)
                os.fsync(stream.fileno())
        self._open(after=env_steps)
        return undone.count(b"\n")

    def write(self, row: Mapping[str, Any]) -> None:
        """One row of numbers (those of numpy too), texts and None, which readers of the
        file see at once.

        A number that is not finite becomes null.
        """
        plain = {name: _plain(value) for name, value in row.items()}
        for name in plain.keys() - METRICS.keys() - self._unknown:
            self._unknown.add(name)
            log.warning(
                "metric %s is in no table: add it to rlhp.storage.metrics.METRICS with its unit "
                "and meaning",
                name,
            )
        with naming(self._rundir.metrics_file):
            self._file.write(checked(plain) + "\n")
            self._file.flush()
        if self._events is not None:
            numbers = {name: value for name, value in plain.items() if name != "env_steps"}
            self._events.add(numbers, step=plain.get("env_steps"))  # type: ignore[arg-type]  # a number where it is known

    def close(self) -> None:
        """Flush both."""
        with naming(self._rundir.metrics_file):
            self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Every row of a `metrics.jsonl`; a torn last line, as a crash leaves it, is not a
    row.

    ValueError where any other line is damaged. A file that does not exist has no rows.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    rows = []
    lines = data.split(b"\n")[:-1]
    begun = False
    for number, line in enumerate(lines, start=1):
        row = _row(line, must_be_checked=begun)
        if row is None:
            raise RlhpError(
                f"{path} line {number}: not a row of metrics, got {line[:40]!r}; delete it"
            )
        begun = begun or _CHECK.search(line) is not None
        rows.append(row)
    return rows


def checked(row: Mapping[str, Value]) -> str:
    """A row as its line, whose last key is a checksum of what comes before it."""
    text = json.dumps(row, allow_nan=False)
    return f'{text[:-1]}{", " * bool(row)}"check": "{zlib.crc32(text.encode()):08x}"}}'


_CHECK = re.compile(rb'(?:, )?"check": "([0-9a-f]{8})"}$')


def _row(line: bytes, *, must_be_checked: bool) -> dict[str, Any] | None:
    """The row in a line; None where it is none, or is not what was written.

    Rows by other hands have no checksum. They may stand before ours, and hold no text
    under a name that is in no table: that would be a checksum whose own name was
    damaged.
    """
    found = _CHECK.search(line)
    text = line if found is None else line[: found.start()] + b"}"
    if must_be_checked if found is None else int(found[1], 16) != zlib.crc32(text):
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    strange = any(isinstance(value, str) for name, value in row.items() if name not in METRICS)
    return None if found is None and strange else row


def without_rewinds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that count: a run resumed from a checkpoint repeats some steps, and the
    later rows win.
    """
    kept: list[dict[str, Any]] = []
    for row in rows:
        steps = row.get("env_steps")
        if steps is not None and kept and (kept[-1].get("env_steps") or 0) > steps:
            kept = [earlier for earlier in kept if (earlier.get("env_steps") or 0) < steps]
        kept.append(row)
    return kept


def _until(data: bytes, env_steps: int) -> int:
    """Where the first row of later env steps begins."""
    at = 0
    for line in data.splitlines(keepends=True):
        row = _row(line.rstrip(b"\n"), must_be_checked=False)
        if row is None or (row.get("env_steps") or 0) > env_steps:
            break
        at += len(line)
    return at


def _plain(value: Any) -> Value:
    """Numbers of numpy and torch as Python's, those that are not finite as None."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (int, float, str)):
        return value
    raise TypeError(f"a metric is a number, a text or None, got {type(value).__name__}")


def _end_on_a_whole_row(file: Path) -> None:
    """Cut off a row that a crash left unfinished."""
    if not file.exists():
        return
    with file.open("rb+") as stream:
        data = stream.read()
        whole = data.rfind(b"\n") + 1
        dropped = len(data) - whole
        if dropped:
            stream.truncate(whole)
            stream.flush()
            os.fsync(stream.fileno())
            log.warning("%s: dropped an unfinished last row of %d bytes", file, dropped)
