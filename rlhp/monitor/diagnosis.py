"""Why nothing is happening in a run, and what goes wrong: answered here, once.

    facts (whoever asks gathers what it can know) -> diagnose -> findings

`rlhp status`, the labeling page and the warnings of a run each gather `Facts` in their
own way, and all show the same findings in the same words. Labelers are shown those that
are meant for them, without the names of others and without advice that they could not
follow. Neither Ray nor torch is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rlhp.monitor.actors import ActorFacts
from rlhp.queue.records import QueueStats
from rlhp.system.roles import spoken

SILENT_SECONDS = 60.0
"""A labeler not heard of for longer is not there: one that works polls many times a
minute.
"""
LONG_BACKLOG = 100
"""Unread answers that deserve a word: a reward trainer that is there reads them within
a second.
"""

Kind = Literal[
    "missing",
    "closed",
    "gone",
    "paused",
    "teachers",
    "control",
    "starting",
    "silent",
    "actor",
    "redis",
    "at work",
    "unanswered",
    "clips",
    "others",
    "warm-up",
    "spent",
    "draining",
    "collecting",
    "answered",
    "empty",
    "alarm",
    "backlog",
    "left",
    "refused",
    "set aside",
]
Audience = Literal["everybody", "labelers", "operators"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of a run at one moment; None where whoever asks cannot know it."""

    name: str = ""
    path: str = ""
    """Its directory, as commands name it."""
    ended: bool = False
    """Whether it is known not to go on, and said so."""
    gone: bool = False
    """Whether its process is not there any more and had not said so."""

    source: str | None = None
    """Who answers: `labels.source`."""
    budget: int | None = None
    """`labels.budget`."""
    initial: int | None = None
    """Answers after which learning begins."""
    page: str | None = None
    """Where people label."""

    env_steps: int = 0
    reward_version: int = 0
    learning: bool | None = None
    """Whether the policy learns yet; None before anything was measured."""
    pool: int | None = None
    """Candidate segments held."""
    pool_target: int | None = None
    """Candidate segments that the warm-up collects."""
    allowed: int | None = None
    """Queries that the label schedule allows by now."""
    answered: int = 0
    """Queries with an answer that counts."""

    queue: QueueStats | None = None
    queue_problem: str | None = None
    """Why the queue could not be asked."""
    refused: int = 0
    """How often Redis had no memory left for a query."""
    set_aside: int = 0
    """Entries of the answer log that made no row."""
    actors: Sequence[ActorFacts] = ()
    alarms: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with what is learned, by the name of the alarm."""
    silent_seconds: float | None = None
    """For how long nothing was measured, where that is unusually long."""

    paused: str | None = None
    """Why the labeler who asks is asked nothing."""
    turned_away: bool = False
    """Whether a labeler who wanted a query got none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is so."""

    kind: Kind
    what: str
    """What is so, in words for everybody who is shown the finding."""
    more: str = ""
    """What only whoever runs it should read: names and ages."""
    way_out: str = ""
    """What whoever runs it can do about it, or need not."""
    audience: Audience = "operators"

    @property
    def for_labelers(self) -> bool:
        """Whether a labeler is shown it."""
        return self.audience != "operators"

    @property
    def for_operators(self) -> bool:
        """Whether whoever runs it is shown it."""
        return self.audience != "labelers"

    def line(self) -> str:
        """All of it, for whoever runs it, to stand behind a colon."""
        return f"{self.what}{self.more}" + (f"; {self.way_out}" if self.way_out else "")

    def sentence(self) -> str:
        """All of it, as a sentence."""
        line = self.line()
        return f"{line[0].upper()}{line[1:]}."


def diagnose(facts: Facts) -> list[Finding]:
    """What is so, what explains most first."""
    if facts.ended:
        return [*_left_behind(facts), *_damage(facts)]
    if facts.paused is not None:
        return [_for_labelers("paused", f"you are paused: {facts.paused}")]
    if facts.gone:
        return [*_gone(facts), *_damage(facts)]
    return [*_processes(facts), *_asking(facts), *_doubts(facts), *_damage(facts)]


def alarm(name: str, text: str) -> Finding:
    """That what is learned may be wrong, as `rlhp.monitor.alarms` judges it."""
    return Finding(kind="alarm", what=f"what is learned may be wrong ({name}): {text}")


def duration(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h 5 min`, `3 d 4 h`: two units at most."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def _gone(facts: Facts) -> Iterator[Finding]:
    pending = facts.queue is not None and facts.queue.pending
    yield Finding(
        kind="gone",
        what="the process of the run is gone without a word: nothing is asked until it goes on",
        way_out=f"continue with rlhp train --resume {facts.path}",
        audience="operators" if pending else "everybody",  # what is pending can be answered
    )
    if facts.queue is not None and facts.queue.open:
        yield from _open(facts, facts.queue)


def _processes(facts: Facts) -> Iterator[Finding]:
    if facts.silent_seconds is not None:
        yield Finding(
            kind="silent",
            what=f"the last metrics are {duration(facts.silent_seconds)} old: a very long "
            "iteration, or something hangs",
            way_out=f"look into {facts.path}/run.log",
        )
    newest = max((actor.version or 0 for actor in facts.actors), default=0)
    for actor in facts.actors:
        yield from _actor(actor, newest=newest)


def _actor(actor: ActorFacts, *, newest: int) -> Iterator[Finding]:
    who = f"the {spoken(actor.role)}"
    if actor.fatal is not None:
        yield Finding(kind="actor", what=f"{who} failed: {actor.fatal}")
    if actor.state == "pending_creation":
        yield Finding(
            kind="actor",
            what=f"{who} is being started, or waits for a node with room",
            way_out="see `ray status` where it goes on",
        )
    elif actor.state == "restarting":
        yield Finding(kind="actor", what=f"{who} is being started again")
    elif actor.state == "dependencies_unready":
        yield Finding(kind="actor", what=f"{who} waits for what it is built from")
    elif not actor.here:
        yield Finding(kind="actor", what=f"{who} is {actor.state}")
    if actor.waiting_for is not None:
        yield Finding(kind="actor", what=f"{who} waits: {actor.waiting_for}")
    if actor.version is not None and actor.version < newest:
        yield Finding(
            kind="actor",
            what=f"{who} has reward version {actor.version}, and the newest is {newest}",
        )


def _asking(facts: Facts) -> Iterator[Finding]:
    """Why a labeler gets nothing, and whom the run waits for."""
    if facts.source == "none":
        yield Finding(
            kind="control",
            what="this is the control arm: it trains on the env reward and asks nobody",
        )
        return
    if facts.queue_problem is not None:
        yield Finding(
            kind="redis",
            what=f"the queue cannot be asked: {facts.queue_problem}",
            way_out="training goes on with the answers it has",
        )
        return
    stats = facts.queue
    if stats is None:
        if facts.learning is None:
            yield _starting()
        return
    if stats.state == "missing":
        yield _for_everybody("missing", "the run is not at this Redis yet")
        return
    if stats.state == "closed":
        yield _for_everybody("closed", "the run is over: nothing more is asked")
        return
    if facts.source == "oracle":
        yield _for_labelers("teachers", "teachers answer this run: it draws no clips for people")
    spent = facts.budget is not None and stats.asked >= facts.budget
    if stats.open:
        yield from _open(facts, stats)
    elif not spent:
        yield _nothing_open(facts, stats)
    if spent:
        yield Finding(
            kind="spent",
            what=f"the label budget is spent: all {facts.budget} queries of the run are asked",
            more=f", {facts.answered} answered",
            way_out="a larger labels.budget asks more",
            audience="operators" if stats.open else "everybody",
        )
    elif (
        not facts.learning
        and facts.initial is not None
        and stats.asked > 0
        and (facts.answered < facts.initial)
    ):
        yield Finding(
            kind="warm-up",
            what=f"learning starts after the first {facts.initial} answers: {stats.asked} asked, "
            f"{facts.answered} answered",
        )


def _open(facts: Facts, stats: QueueStats) -> Iterator[Finding]:
    if stats.pending and facts.turned_away:
        yield _for_labelers(
            "others",
            f"{_queries(stats.pending)} open, which you answered or skipped: others are asked",
        )
    elif not stats.pending and stats.reserved:
        yield _for_everybody("clips", f"clips of {_queries(stats.reserved)} are being drawn")
    elif not stats.pending:
        yield _for_everybody(
            "others", f"{_queries(stats.leased)} open, all in the hands of labelers"
        )
    age = f"{_queries(stats.open)} open, oldest {duration(stats.oldest_age_seconds)}"
    at_work = sorted(
        name for name, labeler in stats.labelers.items() if labeler.idle_seconds <= SILENT_SECONDS
    )
    if at_work:
        names = ", ".join(at_work[:3]) + (", ..." if len(at_work) > 3 else "")
        labelers = f"{len(at_work)} labeler{'s' if len(at_work) > 1 else ''}"
        yield Finding(kind="at work", what=f"{labelers} at work ({names}): {age}")
    elif stats.pending or stats.leased:
        quietest = min((labeler.idle_seconds for labeler in stats.labelers.values()), default=None)
        seen = (
            "no labeler was ever seen"
            if quietest is None
            else f"no labeler seen for {duration(quietest)}"
        )
        yield Finding(
            kind="unanswered",
            what=f"waiting for labels: {age}, {seen}",
            way_out=_way_to_label(facts),
        )


def _nothing_open(facts: Facts, stats: QueueStats) -> Finding:
    if stats.state == "draining":
        return _for_everybody("draining", "the run is ending: nothing new is asked")
    if facts.learning is None and not stats.admitted:
        return _starting()
    allowed = facts.allowed
    if facts.learning:
        if allowed is not None and stats.asked >= allowed:
            return _for_everybody(
                "answered",
                f"all {allowed} queries that the schedule allows by now are asked and none is "
                "open: more come while the policy learns",
            )
    else:
        pool, target = facts.pool, facts.pool_target
        if pool is not None and target is not None and pool < target:
            return _for_everybody(
                "collecting", f"a random policy collects segments to ask about: {pool}/{target}"
            )
        if allowed is not None and stats.asked >= allowed > 0:
            return _for_everybody("answered", "the first answers are in: the reward is fitted")
    return _for_everybody("empty", "the next queries are being chosen")


def _doubts(facts: Facts) -> Iterator[Finding]:
    for name, text in sorted(facts.alarms.items()):
        yield alarm(name, text)
    if facts.queue is not None and facts.queue.backlog > LONG_BACKLOG:
        yield Finding(
            kind="backlog",
            what=f"{facts.queue.backlog} answers wait for the reward trainer, which may be busy "
            "or gone",
        )


def _left_behind(facts: Facts) -> Iterator[Finding]:
    if facts.queue is not None and facts.queue.backlog:
        yield Finding(
            kind="left",
            what=f"{facts.queue.backlog} answers are at the queue and not on disk",
            way_out=f"rlhp train --resume {facts.path} stores them",
        )


def _damage(facts: Facts) -> Iterator[Finding]:
    """What a run should not leave behind, whether it goes on or not."""
    if facts.refused:
        yield Finding(
            kind="refused",
            what=f"Redis had no memory left for a query {facts.refused} times, and nobody is "
            "asked while it has none",
            way_out="raise its maxmemory; the policy learns on from the answers there are",
        )
    if facts.set_aside:
        yield Finding(
            kind="set aside",
            what=f"{facts.set_aside} entries of the answer log made no row and are set aside, "
            "whole: a client of somebody's own wrote them, or they are damaged",
            way_out=f"{facts.path}/run.log names each, and Redis keeps the newest under "
            f"rlhp:{{{facts.name}}}:aside",
        )


def _starting() -> Finding:
    return Finding(
        kind="starting",
        what="its processes are being started, and nothing is measured yet",
        more=": Ray is starting or has no room, or the first iteration is under way",
        audience="everybody",
    )


def _way_to_label(facts: Facts) -> str:
    if facts.source != "human":
        return f"start one with rlhp label {facts.path}"
    if facts.page is not None:
        return f"label at {facts.page}"
    return f"start a page with rlhp serve {facts.path}"


def _for_everybody(kind: Kind, what: str) -> Finding:
    return Finding(kind=kind, what=what, audience="everybody")


def _for_labelers(kind: Kind, what: str) -> Finding:
    return Finding(kind=kind, what=what, audience="labelers")


def _queries(count: int) -> str:
    return f"{count} quer{'y' if count == 1 else 'ies'}"
