"""What a run is doing, in sentences, and why nothing is happening when nothing is.

Reads `run.json`, the last row of metrics and the queue; asks no process of the run, so
it works on finished, running and crashed runs alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhp.config.schema import RunConfig
from rlhp.monitor import actors
from rlhp.monitor.actors import ActorFacts
from rlhp.monitor.console import duration, fresh
from rlhp.preferences.answers import settle
from rlhp.preferences.fresh import NEWEST, by_age, by_version, predicted
from rlhp.preferences.quality import LabelerReport, table
from rlhp.preferences.quality import report as judged
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir, RunInfo

if TYPE_CHECKING:
    from rlhp.preferences.events import EventRow
    from rlhp.queue.records import QueueStats

SILENT_SECONDS = 60.0
"""A labeler not heard of for longer is not there: one that works polls many times a
minute.
"""
VERSIONS_SHOWN = 5
"""Reward versions whose fresh accuracy is told one by one."""
STALE_ROW_SECONDS = 120.0
"""Metrics are written every iteration; an older last row deserves a word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Everything `explain` judges by."""

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


def gather(rundir: RunDir) -> Facts:
    """The facts of a run as of now."""
    from socket import gethostname

    info, config = rundir.info(), rundir.config()
    row: dict[str, Any] = {}
    for newer in read_metrics(rundir.metrics_file):
        row |= {name: value for name, value in newer.items() if value is not None}
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
    sentences = [_process(facts)]
    if facts.info.state == "running" and (facts.alive or facts.elsewhere):
        sentences += _progress(facts)
        sentences += actors.troubles(facts.actors)
        if not facts.config.preferences:
            sentences.append(
                "This is the control arm: it trains on the env reward and asks nobody."
            )
        else:
            sentences += _labels(facts)
    return [*sentences, *_unusual(facts)]


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
        return (
            f"{info.name} died: process {info.pid} is gone without a word (killed?){last}; "
            f"{resume}."
        )
    return f"{info.name} runs as process {info.pid}, started {_ago(info.started, facts.now)}."


def _progress(facts: Facts) -> Iterator[str]:
    if facts.row is None:
        yield "No metrics yet: Ray is starting, or the first iteration is under way."
    elif facts.row_age_seconds is not None and facts.row_age_seconds > STALE_ROW_SECONDS:
        yield (
            f"The last metrics are {duration(facts.row_age_seconds)} old: a very long iteration, "
            f"or something hangs; look into {facts.path / 'run.log'}."
        )


def _labels(facts: Facts) -> Iterator[str]:
    row: Mapping[str, Any] = facts.row if facts.row is not None else {}
    if facts.queue_problem is not None:
        yield (
            f"The queue cannot be asked: {facts.queue_problem}. Training goes on with the "
            "answers it has."
        )
    stats = facts.queue
    budget = facts.config.labels.budget
    asked = stats.asked if stats is not None else row.get("labels/asked", 0)
    answered = stats.answered if stats is not None else row.get("labels/answered", 0)
    warming = not row.get("reward/version") and row.get("phase", "warm-up") == "warm-up"
    if warming:
        yield _warm_up(facts, asked=asked, answered=answered)
    if stats is not None and stats.open:
        yield _open(facts, stats)
    if asked >= budget:
        yield (
            f"The label budget is spent: {asked} of {budget} asked, {answered} answered; "
            "nothing more will be asked."
        )
    elif not warming and (stats is None or not stats.open):
        yield _nothing_open(facts, asked=asked, allowed=row.get("labels/allowed"))
    if row.get("alarms"):
        log = facts.path / "run.log"
        yield (
            f"What is learned may be wrong ({row['alarms/names']}): {log} says why, and what to do."
        )
    if stats is not None and stats.backlog > 100:
        yield f"{stats.backlog} answers wait for the reward trainer, which may be busy or gone."


def _unusual(facts: Facts) -> Iterator[str]:
    """What a run should not leave behind, whether it goes on or not."""
    row: Mapping[str, Any] = facts.row if facts.row is not None else {}
    stats = facts.queue
    if facts.info.state != "running" and stats is not None and stats.backlog:
        resume = f"rlhp train --resume {facts.path}"
        yield f"{stats.backlog} answers are at the queue and not on disk: {resume} stores them."
    if refused := row.get("queue/refused", 0):
        yield (
            f"Redis had no memory left for a query {refused:.0f} times: raise its maxmemory, or "
            "nobody is asked."
        )
    odd = row.get("queue/set_aside", 0) if stats is None else stats.set_aside
    if odd:
        yield (
            f"{odd} entries of the answer log made no row and are set aside, whole: "
            f"{facts.path / 'run.log'} says why, and Redis keeps the newest under "
            f"rlhp:{{{facts.info.name}}}:aside."
        )


def _warm_up(facts: Facts, *, asked: int, answered: int) -> str:
    row: Mapping[str, Any] = facts.row if facts.row is not None else {}
    labels, length = facts.config.labels, facts.config.query.segment_length
    pool, target = row.get("segments/pool", 0), row.get("segments/warmup_target")
    if asked == 0 or (target is not None and pool < target):
        goal = "" if target is None else f" of {target:.0f}"
        return (
            f"Warm-up: a random policy collects segments of {length} steps, {pool:.0f}{goal} "
            f"so far; {asked} asked."
        )
    initial = labels.initial_queries
    return (
        f"Warm-up: learning starts after the first {initial} answers; {asked} asked, "
        f"{answered} answered."
    )


def _open(facts: Facts, stats: QueueStats) -> str:
    queries = (
        f"{stats.open} quer{'y' if stats.open == 1 else 'ies'} open, oldest "
        f"{duration(stats.oldest_age_seconds)}"
    )
    at_work = sorted(
        name for name, labeler in stats.labelers.items() if labeler.idle_seconds <= SILENT_SECONDS
    )
    if at_work:
        names = ", ".join(at_work[:3]) + (", ..." if len(at_work) > 3 else "")
        return (
            f"{len(at_work)} labeler{'s' if len(at_work) > 1 else ''} at work ({names}): {queries}."
        )
    quietest = min((labeler.idle_seconds for labeler in stats.labelers.values()), default=None)
    seen = (
        "no labeler was ever seen"
        if quietest is None
        else f"no labeler seen for {duration(quietest)}"
    )
    return f"Waiting for labels: {queries}, {seen}; {_way_to_label(facts)}."


def _way_to_label(facts: Facts) -> str:
    page = RunDir(facts.path).page_link()
    if facts.config.labels.source == "human":
        return (
            f"label at {page}" if page is not None else f"start a page with rlhp serve {facts.path}"
        )
    return f"start one with rlhp label {facts.path}"


def _nothing_open(facts: Facts, *, asked: int, allowed: int | None) -> str:
    if allowed is not None and asked >= allowed:
        return (
            f"Nothing is open: all {allowed} queries that the schedule allows by now were "
            "asked; more steps allow more."
        )
    return "Nothing is open though the budget allows more: the next pairs are being chosen."


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
    from rlhp.queue.accounts import Pauses

    url = rundir.redis_url()
    pauses = Pauses(url, run=rundir.name).all() if asked and url is not None else {}
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
