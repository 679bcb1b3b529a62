"""What a run is doing, in sentences, and why nothing is happening when nothing is.

It reads `run.json`, the metrics and the queue, and asks no process of the run, so it
works on finished, running and crashed runs alike. What it makes of them is
`rlhp.monitor.diagnosis`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhp.config.schema import RunConfig
from rlhp.monitor import actors, diagnosis
from rlhp.monitor.actors import ActorFacts
from rlhp.monitor.alarms import Alarms
from rlhp.monitor.console import fresh
from rlhp.monitor.diagnosis import diagnose, duration
from rlhp.preferences.answers import settle
from rlhp.preferences.fresh import NEWEST, by_age, by_version, predicted
from rlhp.preferences.quality import LabelerReport, table
from rlhp.preferences.quality import report as judged
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir, RunInfo

if TYPE_CHECKING:
    from rlhp.preferences.events import EventRow
    from rlhp.queue.records import QueueStats

VERSIONS_SHOWN = 5
"""Reward versions whose fresh accuracy is told one by one."""
STALE_ROW_SECONDS = 120.0
"""Metrics are written every iteration; an older last row deserves a word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is on disk and at the queue of a run."""

    path: Path
    info: RunInfo
    config: RunConfig
    alive: bool
    """Whether the process of the run is there, as far as this host can tell."""
    elsewhere: bool
    """Whether it runs, or ran, on another host."""
    now: datetime
    row: Mapping[str, Any] | None
    """The newest value of every metric; None before the first row."""
    row_age_seconds: float | None
    queue: QueueStats | None
    queue_problem: str | None
    """Why the queue could not be asked; None where it was, or need not be."""
    actors: Sequence[ActorFacts] = ()
    """Every Ray actor as last seen, where the run goes on."""
    labelers: Sequence[LabelerReport] = ()
    """By all answers that are on disk."""
    predicted: Sequence[EventRow] = ()
    """Settled answers that a reward version had predicted."""
    cut_at: Mapping[str, int] = field(default_factory=dict)
    """Env steps of the run at which their segments were cut."""

    alarms: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with what is learned, as the run itself judged it."""

    def of_run(self) -> diagnosis.Facts:
        """The facts that a diagnosis takes."""
        row: Mapping[str, Any] = self.row if self.row is not None else {}
        labels, queue = self.config.labels, self.queue
        going = self.info.state == "running"
        silent = self.row_age_seconds if going else None
        version = int(row.get("reward/version") or 0)
        return diagnosis.Facts(
            name=self.info.name,
            path=str(self.path),
            ended=not going,
            gone=going and not self.alive and not self.elsewhere,
            source=labels.source,
            budget=labels.budget,
            initial=labels.initial_queries,
            page=RunDir(self.path).page_link(),
            env_steps=int(row.get("env_steps") or 0),
            reward_version=version,
            learning=bool(version) or row.get("phase") == "learning" if row else None,
            pool=row.get("segments/pool"),
            pool_target=row.get("segments/warmup_target"),
            allowed=row.get("labels/allowed"),
            answered=int(row.get("labels/answered") or 0) if queue is None else queue.answered,
            queue=queue,
            queue_problem=self.queue_problem,
            refused=int(row.get("queue/refused") or 0),
            set_aside=int(row.get("queue/set_aside") or 0) if queue is None else queue.set_aside,
            actors=self.actors,
            alarms=self.alarms,
            silent_seconds=silent if silent is not None and silent > STALE_ROW_SECONDS else None,
        )


def gather(rundir: RunDir) -> Facts:
    """The facts of a run as of now."""
    from socket import gethostname

    info, config = rundir.info(), rundir.config()
    rows = read_metrics(rundir.metrics_file)
    row: dict[str, Any] = {}
    for newer in rows:
        row |= {name: value for name, value in newer.items() if value is not None}
    alarms = Alarms(config)
    alarms.recall(rows)
    now = datetime.now(UTC)
    queue, problem = None, None
    if config.preferences and (info.state == "running" or config.redis.url is not None):
        queue, problem = _ask_queue(rundir)
    return Facts(
        path=rundir.path,
        info=info,
        config=config,
        alive=info.alive,
        elsewhere=info.host != gethostname(),
        now=now,
        row=row or None,
        row_age_seconds=now.timestamp() - rundir.metrics_file.stat().st_mtime if row else None,
        queue=queue,
        queue_problem=problem,
        actors=actors.read(rundir.actors_file)[0] if info.state == "running" else (),
        alarms=alarms.active,
        **_answers(rundir, config, asked=queue is not None),
    )


def report(facts: Facts) -> str:
    """The sentences, then a small table."""
    rows = list(_table(facts))
    width = max((len(name) for name, _ in rows), default=0)
    blocks = [
        explain(facts),
        [f"{name:<{width}}  {value}" for name, value in rows],
        actors.table(facts.actors) if facts.alive or facts.elsewhere else [],
        table([each for each in facts.labelers if each.kind != "teacher"]),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def explain(facts: Facts) -> list[str]:
    """What is going on, the most important first, one sentence each."""
    findings = diagnose(facts.of_run())
    return [_process(facts), *(each.sentence() for each in findings if each.for_operators)]


def _process(facts: Facts) -> str:
    info, path = facts.info, facts.path
    resume = f"continue with rlhp train --resume {path}"
    ended = f" {_ago(info.ended, facts.now)}" if info.ended else ""
    if info.state == "created":
        return f"{info.name} was set up but never started; {resume}."
    if info.state == "finished":
        return f"{info.name} finished{ended}; see rlhp eval {path} and rlhp plot {path}."
    if info.state == "interrupted":
        why = "" if info.error is None else f": {info.error}"
        return f"{info.name} was stopped{ended}{why}; {resume}."
    if info.state == "failed":
        return (
            f"{info.name} failed{ended}: {info.error}; look into {path / 'run.log'}, then {resume}."
        )
    if facts.elsewhere:
        return (
            f"{info.name} runs on {info.host} as process {info.pid}; whether it still lives "
            "only that host knows."
        )
    if not facts.alive:
        last = (
            ""
            if facts.row_age_seconds is None
            else f", its last metrics are {duration(facts.row_age_seconds)} old"
        )
        return f"{info.name} died: it was process {info.pid}{last}."
    return f"{info.name} runs as process {info.pid}, started {_ago(info.started, facts.now)}."


def _table(facts: Facts) -> Iterator[tuple[str, str]]:
    row = facts.row
    if row is not None:
        total = facts.config.learner.total_env_steps
        yield "env steps", f"{row.get('env_steps', 0):,} of {total:,}"
        for name, label, form in (
            ("env_steps_per_second", "env steps per second", ",.0f"),
            ("env_runners/episode_return_mean", "true return", ",.1f"),
            ("predicted_return_mean", "predicted return", ",.1f"),
            ("return_correlation", "their correlation", ".2f"),
            ("reward/version", "reward version", ".0f"),
        ):
            if name in row:
                yield label, format(row[name], form)
        if (accuracy := fresh(row)) is not None:
            yield "fresh accuracy", accuracy
        yield from _fresh_parts(facts)
        if row.get("alarms"):
            yield "alarms", str(row["alarms/names"])
        if facts.row_age_seconds is not None:
            yield "last metrics", f"{duration(facts.row_age_seconds)} ago"
    stats = facts.queue
    if stats is not None:
        yield (
            "labels",
            f"{stats.asked} asked, {stats.answered} answered of {facts.config.labels.budget}",
        )
        odd = f", {stats.set_aside} entries set aside" if stats.set_aside else ""
        yield (
            "queue",
            f"{stats.pending} waiting, {stats.leased} leased, {stats.backlog} answers unread{odd}",
        )
        for name, labeler in sorted(stats.labelers.items()):
            yield (
                f"labeler {name}",
                f"{labeler.answers} answers, heard of {duration(labeler.idle_seconds)} ago",
            )
    elif row is not None and "labels/asked" in row:
        answered, budget = row.get("labels/answered", 0), facts.config.labels.budget
        yield "labels", f"{row['labels/asked']} asked, {answered} answered of {budget}"


def _fresh_parts(facts: Facts) -> Iterator[tuple[str, str]]:
    """Fresh accuracy by reward version and by age of the segments, of the versions that
    were answered last.
    """
    rows = facts.predicted
    if not rows:
        return
    versions = list(by_version(rows).items())[-VERSIONS_SHOWN:]
    told = [
        f"{version}: {share.accuracy:.2f} of {share.decisive}"
        for version, share in versions
        if share.decisive
    ]
    if told:
        yield "  by reward version", ", ".join(told)
    young, old = by_age(rows[-NEWEST:], facts.cut_at)
    if young.accuracy is not None and old.accuracy is not None:
        yield (
            "  by age of segments",
            f"younger half {young.accuracy:.2f}, older half {old.accuracy:.2f}",
        )


def _answers(rundir: RunDir, config: RunConfig, *, asked: bool) -> dict[str, Any]:
    """What the answers on disk say of those who gave them, and of the reward that had
    predicted them.
    """
    if not config.preferences or not (rundir.preferences / "dataset.json").exists():
        return {}
    from rlhp.preferences.dataset import PreferenceDataset

    url, pauses = rundir.redis_url(), {}
    if asked and url is not None:
        from rlhp.queue.queue import QueryQueue

        with QueryQueue(url, run=rundir.name) as queue:
            pauses = queue.pauses.all()
    pardoned = [name for name, reason in pauses.items() if not reason]
    dataset = PreferenceDataset.open(rundir.preferences)
    rows = predicted(settle(dataset.live()))
    return {
        "labelers": judged(
            dataset.events(),
            trusted=(*config.quality.trusted, *pardoned),
            teachers=config.labels.source == "oracle",
        ),
        "predicted": rows,
        "cut_at": dataset.cut_at(segment for row in rows for segment in row.candidate_ids),
    }


def _ask_queue(rundir: RunDir) -> tuple[QueueStats | None, str | None]:
    from rlhp.queue.queue import QueryQueue, ping

    url = rundir.redis_url()
    if url is None:
        return None, "it has no address yet"
    try:
        ping(url)  # says within milliseconds that a server is away, where the queue would retry
        with QueryQueue(url, run=rundir.name, connect_timeout_seconds=2) as queue:
            stats = queue.stats()
    except (ConnectionError, ValueError) as error:
        return None, str(error)
    if stats.state == "missing":
        return None, "the run was not opened there yet"
    return stats, None


def _ago(when: str | None, now: datetime) -> str:
    if when is None:
        return "at an unknown time"
    return f"{duration((now - datetime.fromisoformat(when)).total_seconds())} ago"
