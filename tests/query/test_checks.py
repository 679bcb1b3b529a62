"""Checks: who gets one and when, where the known answer comes from, and that nothing
gives it away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhp.config.schema import RewardConfig, RunConfig
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.preferences.events import EventRow
from rlhp.preferences.quality import report
from rlhp.query.checks import Checks, any_untrained, known_answers
from rlhp.queue.queue import Event, Lease, QueryQueue
from rlhp.types import Answer, Array, Query, Segment, comparison_id
from tests.preferences.dataset_samples import answer, segment
from tests.query.actor_parts import actor_in, at, config, dataset_in, segments

FIRST, SECOND = Answer.FIRST, Answer.SECOND


class Asked:
    """Checks over a real dataset; what they put is kept, and may be answered."""

    def __init__(
        self, folder: Path, settings: RunConfig, *, returns: Any = lambda pairs: None
    ) -> None:
        self.dataset = dataset_in(folder)
        self.put: list[tuple[Query, str, dict[str, Any]]] = []
        self.checks = Checks(settings, store=dataset_in(folder), put=self._put, returns=returns)

    def _put(self, query: Query, only: str, hidden: Any) -> str:
        self.put.append((query, only, dict(hidden)))
        return "ok"

    def work(
        self, *numbers: int, by: str = "ann", turned: bool = False, **more: Any
    ) -> list[EventRow]:
        """Somebody answers the training queries of these numbers: the even ones
        `first`, the odd ones `second`.
        """
        pairs = [(segment(2 * number), segment(2 * number + 1)) for number in numbers]
        self.dataset.add_segments([each for pair in pairs for each in pair])
        said = [FIRST if number % 2 == turned else SECOND for number in numbers]
        rows = [
            answer(*pair, each, labeler=by, **more) for pair, each in zip(pairs, said, strict=True)
        ]
        self.dataset.add_events(rows)
        return rows

    def step(self) -> int:
        return self.checks.step(wait_seconds=0)

    def answer_last(self, said: Answer) -> None:
        """The newest check is answered."""
        query, labeler, hidden = self.put[-1]
        gold = Answer(hidden["gold"]) if hidden else None
        changes = {
            "query_id": query.id,
            "purpose": query.purpose,
            "gold_answer": gold,
            "labeler": labeler,
        }
        self.dataset.add_events([answer(query.first, query.second, said, **changes)])


def people(**quality: Any) -> RunConfig:
    return config(
        labels={"source": "human"}, clips={"enabled": False}, quality={"probation": 4} | quality
    )


def test_every_second_of_the_first_answers_is_a_check_then_as_many_as_the_rate_says(
    tmp_path: Path,
) -> None:
    run = Asked(tmp_path, people(gold_rate=0.25))
    for number in range(6):
        run.work(number)
    for number in range(6, 24):
        run.work(number)
        while run.step():  # nobody else answered anything, so her own answers are asked again
            run.answer_last(FIRST)
    assert len(run.put) == 4 + int(0.25 * 20)
    assert {labeler for _, labeler, _ in run.put} == {"ann"}
    assert len({query.id for query, _, _ in run.put}) == len(run.put)
    assert all(query.purpose == "repeat" and not hidden for query, _, hidden in run.put)


def test_teachers_are_not_checked_unless_asked_for(tmp_path: Path) -> None:
    run = Asked(tmp_path, config())
    run.work(*range(10))
    assert (config().gold_rate, run.step()) == (0.0, 0)
    assert people().gold_rate == 0.05


def test_no_more_than_two_checks_wait_for_one_labeler(tmp_path: Path) -> None:
    run = Asked(tmp_path, people())
    run.work(*range(30))
    assert sum(run.step() for _ in range(5)) == 2
    run.answer_last(FIRST)
    assert sum(run.step() for _ in range(5)) == 1


def test_a_repeat_comes_five_answers_later_at_the_earliest(tmp_path: Path) -> None:
    run = Asked(tmp_path, people())
    run.work(*range(5))
    assert run.step() == 0
    run.work(5)
    assert run.step() == 1
    assert {run.put[0][0].first.id, run.put[0][0].second.id} == {segment(0).id, segment(1).id}


def test_a_pair_that_two_others_agree_on_is_gold_in_either_order(tmp_path: Path) -> None:
    run = Asked(tmp_path, people(probation=8))
    for who in ("bob", "cat"):
        run.work(*range(12), by=who)
    run.work(*range(20, 28), by="ann")
    orders = set()
    for _ in range(8):
        run.step()
        mine = [(query, hidden) for query, labeler, hidden in run.put if labeler == "ann"]
        query, hidden = mine[-1]
        run.put.append((query, "ann", hidden))
        run.answer_last(FIRST)
        if query.purpose == "gold":
            turned = query.first.start % 2 == 1  # the sample pairs are (even, odd)
            number = min(query.first.start, query.second.start) // 2
            assert hidden == {"gold": "first" if (number % 2 == 0) != turned else "second"}
            orders.add(turned)
    assert orders == {True, False}
    purposes = [query.purpose for query, labeler, _ in run.put if labeler == "ann"]
    assert purposes.count("gold") > purposes.count("repeat") > 0


def test_what_somebody_took_part_in_is_never_gold_for_them(tmp_path: Path) -> None:
    run = Asked(tmp_path, people())
    for who in ("ann", "bob"):
        run.work(*range(8), by=who)
    while run.step():
        pass
    assert run.put
    assert all(query.purpose == "repeat" for query, _, _ in run.put)


def votes(**answers: Answer) -> list[EventRow]:
    return [answer(segment(0), segment(1), said, labeler=who) for who, said in answers.items()]


def test_known_is_what_all_said_and_a_trusted_word_outweighs_the_others() -> None:
    assert [each.source for each in known_answers(votes(ann=FIRST))] == ["likely"]
    assert [each.source for each in known_answers(votes(ann=FIRST, bob=FIRST))] == ["agreed"]
    assert known_answers(votes(ann=FIRST, bob=SECOND)) == []
    assert known_answers(votes(ann=FIRST, bob=Answer.TIE)) == []
    assert known_answers(votes(ann=Answer.TIE, bob=Answer.TIE)) == []
    (known,) = known_answers(votes(ann=FIRST, bob=SECOND), trusted=["bob"])
    assert (known.answer, known.source) == (SECOND, "trusted")
    assert known_answers([answer(segment(0), segment(1), purpose="gold")]) == []
    corrected = answer(
        segment(0), segment(1), SECOND, labeler="cat", note='{"corrected_by": "boss"}'
    )
    (known,) = known_answers([*votes(ann=FIRST, bob=FIRST), corrected])
    assert (known.answer, known.source) == (SECOND, "trusted")


def test_the_ensemble_confirms_only_with_every_member_sure_and_one_untrained(
    tmp_path: Path,
) -> None:
    def returns(pairs: list[tuple[Segment, Segment]]) -> Array:
        seen.extend(comparison_id((one.id, other.id)) for one, other in pairs)
        # as bob answers
        signs = np.array([1.0 if one.start // 2 % 2 == 0 else -1.0 for one, _ in pairs])
        margin = np.stack([9.0 * signs, second * signs])
        return np.stack([margin, np.zeros_like(margin)], axis=2)

    seen: list[str] = []
    run = Asked(tmp_path, people(), returns=returns)
    rows = run.work(*range(20), by="bob")
    rows += run.work(*range(41, 44))
    second = 2.9  # P = 0.948
    run.step()
    assert [labeler for _, labeler, _ in run.put if labeler == "ann"] == []
    second = 3.0
    run.step()
    assert [
        (query.purpose, len(hidden)) for query, labeler, hidden in run.put if labeler == "ann"
    ] == [("gold", 1)]
    judged = {
        comparison_id(row.candidate_ids): any_untrained(row.query_id, people().reward, seed=0)
        for row in rows
    }
    assert seen
    assert all(judged[pair] for pair in seen)
    assert not all(judged.values())


def test_some_member_is_untrained_on_three_of_four_answers_and_on_a_tenth_without_bootstrap() -> (
    None
):
    def share(**settings: Any) -> float:
        return float(
            np.mean([any_untrained(f"q{n}", RewardConfig(**settings), seed=0) for n in range(4000)])
        )

    assert share(members=3) == pytest.approx(1 - (1 - np.exp(-1)) ** 3, abs=0.02)
    assert share(members=3, bootstrap=False) == pytest.approx(0.1, abs=0.02)


def test_answers_of_suspected_labelers_are_no_gold(tmp_path: Path) -> None:
    run = Asked(tmp_path, people())
    for who in ("bob", "cat"):
        run.work(*range(4), by=who)
    for number in range(30, 34):  # bob fails what is known, so what he says is not
        run.work(number, by="bob", purpose="gold", gold_answer=SECOND if number % 2 == 0 else FIRST)
    assert {each.name: each.state for each in report(run.dataset.events())}["bob"] == "paused"
    run.work(*range(50, 53))
    run.step()
    assert [labeler for _, labeler, _ in run.put if labeler == "ann"] == []


def test_checks_pass_through_the_queue_unpaid_and_untold(tmp_path: Path, queue: QueryQueue) -> None:
    settings = people(probation=3)
    actor = actor_in(tmp_path, queue, settings)
    actor.offer(segments(40))
    at(actor, 0)
    actor.step()
    dataset, seen = dataset_in(tmp_path), list[Lease]()
    events: list[Event] = []
    for _ in range(13):
        (lease,) = queue.lease(labeler="ann", page="ann-page")
        seen.append(lease)
        queue.answer(
            query=lease.query, labeler="ann", page="ann-page", token=lease.token, answer="first"
        )
        events += (new := queue.events(consumer="test"))
        dataset.add_events([EventRow.of_event(event) for event in new])
        actor._checks.step(wait_seconds=0)
    repeats = [lease for lease in seen if lease.body["purpose"] == "repeat"]
    assert len(repeats) == 3
    assert all("gold" not in lease.body and "predicted" not in lease.body for lease in seen)
    assert queue.stats().asked == 10 == actor.budget.initial
    assert queue.stats().answered == 10
    assert len(PreferenceDataset.open(tmp_path).live()) == 10
    predicted = [event.hidden["predicted"] for event in events if event.body["purpose"] == "train"]
    assert all(0 < p < 1 for pair in predicted for p in pair)


def test_a_restarted_actor_asks_no_check_twice(tmp_path: Path, queue: QueryQueue) -> None:
    for _ in range(2):
        run = Asked(tmp_path, people())
        if not run.dataset.events():
            run.work(*range(10))
        assert run.step() == 1
        run.answer_last(FIRST)
    assert len({row.query_id for row in run.dataset.events() if row.purpose == "repeat"}) == 2
