"""The queue against a plain Python model of its rules: any order of calls, the same
statuses, counts and log.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rlhp.queue.queue import QueryQueue
from tests.queue.parts import Meddler, ask, events, opened
from tests.queue.queue_model import MAX_SKIPS, Known, Model

CAP = 3
QUERIES = st.sampled_from(["q0", "q1", "q2", "q3"])
RECENT = st.sampled_from([0, 0, 0, 1, 2, 3])  # which lease: the newest, the one before it, ...
ANOTHER = st.sampled_from([False, False, False, True])  # whether somebody else shows its token
LABELERS = st.sampled_from(["ann", "bob"])
ANSWERS = st.sampled_from(["first", "tie"])


class QueueMachine(Model, RuleBasedStateMachine):
    """Every labeler has one page; time passes only where a rule says so."""

    url = ""

    @initialize(wants=st.tuples(st.integers(1, 2), st.integers(1, 2)), first=LABELERS)
    def begin(self, wants: tuple[int, int], first: str) -> None:
        self.queue = opened(self.url, cap=CAP, max_skips=MAX_SKIPS)
        self.meddler = Meddler(self.queue)
        self.known: dict[str, Known] = {}
        self.issued: list[tuple[str, int]] = []
        self.log: list[tuple[str, str, str]] = []
        self.present: set[str] = set()
        self.admitted = self.dropped = 0
        # Hypothesis leaves out rules at random to get deeper with the others, so each
        # run begins with work to do.
        for number, want in enumerate(wants):
            self.put(f"q{number}", want)
        self.lease(first)

    def teardown(self) -> None:
        if hasattr(self, "meddler"):
            self.meddler.close()

    @rule(query=QUERIES, want=st.sampled_from([1, 2]))
    def put(self, query: str, want: int) -> None:
        open_ = sum(known.state in ("pending", "leased") for known in self.known.values())
        expected = "same" if query in self.known else "full" if open_ >= CAP else "ok"
        assert ask(self.queue, query, want=want) == expected
        if expected == "ok":
            self.admitted += 1
            self.known[query] = Known(number=self.admitted, want=want)

    @rule(labeler=LABELERS)
    def lease(self, labeler: str) -> None:
        self.present.add(labeler)
        offered = [
            name
            for name, known in self.known.items()
            if known.state == "pending" and labeler not in known.seen
        ]
        offered.sort(key=lambda name: self.known[name].number)
        expected = {name for name, known in self.known.items() if known.held_by(labeler)}
        for name in offered[: max(0, 2 - len(expected))]:
            self.issued.append((name, self.known[name].lend(labeler)))
            expected.add(name)
        leases = self.queue.lease(labeler=labeler, page=labeler, n=2)
        assert {lease.query: lease.token for lease in leases} == {
            name: self.known[name].holder for name in expected
        }

    @precondition(lambda self: self.issued)
    @rule()
    def leases_run_out(self) -> None:
        self.meddler.expire_leases()
        assert self.queue.sweep() == sum(known.state == "leased" for known in self.known.values())
        for known in self.known.values():
            if known.state == "leased":
                known.back()

    @rule(labeler=LABELERS)
    def release(self, labeler: str) -> None:
        held = [known for known in self.known.values() if known.held_by(labeler)]
        assert self.queue.release(page=labeler) == len(held)
        for known in held:
            known.back()

    @precondition(lambda self: self.issued)
    @rule(recent=RECENT, another=ANOTHER, answer=ANSWERS, rev=st.sampled_from([0, 0, 0, 0, 1, -1]))
    def answer(self, recent: int, another: bool, answer: str, rev: int) -> None:
        query, token, labeler = self.leased(recent, another)
        known = self.known.get(query)
        revision = (known.rev.get(labeler, 0) if known else 0) + 1 + rev
        expected = self._answered(query, labeler, token=token, answer=answer, rev=revision)
        status = self.queue.answer(
            query=query, labeler=labeler, page=labeler, token=token, answer=answer, rev=revision
        )
        assert status == expected

    @precondition(lambda self: self.issued)
    @rule(recent=RECENT, another=ANOTHER)
    def skip(self, recent: int, another: bool) -> None:
        query, token, labeler = self.leased(recent, another)
        expected = self._skipped(query, labeler, token)
        assert self.queue.skip(query=query, labeler=labeler, page=labeler, token=token) == expected

    @precondition(lambda self: self.issued)
    @rule(recent=RECENT, another=ANOTHER, back=st.sampled_from([0, 0, 0, 1]))
    def undo(self, recent: int, another: bool, back: int) -> None:
        query, _, labeler = self.leased(recent, another)
        known = self.known.get(query)
        rev = (known.rev.get(labeler, 0) if known else 0) - back
        undone = self.queue.undo(query=query, labeler=labeler, page=labeler, rev=rev)
        assert (undone.status, undone.token) == self._undone(query, labeler, rev)

    @rule(query=QUERIES)
    def drop(self, query: str) -> None:
        known = self.known.get(query)
        state = known.state if known else "gone"
        expected = {"pending": "ok", "dropped": "same", "leased": "leased"}.get(state, "gone")
        assert self.queue.drop(query=query) == expected
        if expected == "ok":
            self._dropped(query)

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "known"):
            return
        stats: Any = self.queue.stats()
        states = [known.state for known in self.known.values()]
        for state in ("pending", "leased", "done", "dropped"):
            assert getattr(stats, state) == states.count(state), state
        assert stats.admitted == self.admitted
        assert stats.asked == self.admitted - self.dropped
        assert stats.answered == sum(known.got > 0 for known in self.known.values()) <= stats.asked
        assert stats.backlog == len(self.log)

    @rule()
    def the_log_agrees(self) -> None:
        again = opened_again(self)
        assert [(event.event, event.query, event.labeler) for event in events(again)] == self.log

    @rule()
    def payloads_are_there_while_they_are_needed(self) -> None:
        wanted = [f"{name}-{side}" for name in self.known for side in "ab"]
        assert sorted(self.queue.segments(wanted)) == sorted(wanted)


def opened_again(machine: QueueMachine) -> QueryQueue:
    """The run as a restarted reader sees it: everything un-acked comes again."""
    return QueryQueue(machine.url, run=machine.queue.run)


def test_the_queue_does_what_the_model_says(redis_url: str) -> None:
    QueueMachine.url = redis_url
    budget = settings(
        max_examples=60,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(QueueMachine, settings=budget)


def step(machine: QueueMachine, dice: random.Random) -> None:
    """One rule with arguments that mostly make sense."""
    query, labeler = f"q{dice.randrange(4)}", dice.choice(["ann", "bob"])
    recent, another = dice.choice([0, 0, 1, 1, 2, 3]), dice.random() < 0.1
    moves: list[tuple[int, Callable[[], None]]] = [
        (3, lambda: machine.put(query, dice.choice([1, 2]))),
        (6, lambda: machine.lease(labeler)),
        (
            8,
            lambda: machine.answer(
                recent, another, dice.choice(["first", "tie"]), dice.choice([0, 0, 0, 0, 1, -1])
            ),
        ),
        (2, lambda: machine.skip(recent, another)),
        (4, lambda: machine.undo(recent, another, dice.choice([0, 0, 0, 1]))),
        (2, machine.leases_run_out),
        (1, lambda: machine.release(labeler)),
        (1, lambda: machine.drop(query)),
    ]
    dice.choices([move for _, move in moves], weights=[weight for weight, _ in moves])[0]()
    machine.counts_agree()


@pytest.mark.parametrize("seed", range(5))
def test_long_walks_agree_with_the_model(redis_url: str, seed: int) -> None:
    # Hypothesis finds and shrinks the odd case; these go deep, where most calls still
    # have an effect.
    QueueMachine.url = redis_url
    dice = random.Random(seed)
    for _ in range(8):
        machine = QueueMachine()
        machine.begin((dice.choice([1, 2]), dice.choice([1, 2])), "ann")
        for _ in range(50):
            step(machine, dice)
        machine.the_log_agrees()
        machine.payloads_are_there_while_they_are_needed()
        machine.teardown()
