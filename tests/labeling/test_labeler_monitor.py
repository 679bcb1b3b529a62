"""The watch over labelers: it pauses who guesses, tells admins, and takes weight from
doubtful answers in the fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhp.config.schema import RunConfig
from rlhp.labeling.labeler_monitor import LabelerMonitor
from rlhp.preferences.events import EventRow
from rlhp.preferences.quality import published, report, table
from rlhp.queue.queue import QueryQueue
from rlhp.types import Answer
from tests.reward.trainer_parts import Run, config

FIRST, SECOND = Answer.FIRST, Answer.SECOND


def gold(wrong: int, right: int, *, by: str) -> list[EventRow]:
    """Checks that this labeler failed and passed."""
    return [
        EventRow(
            query_id=f"{by}-{n}",
            candidate_ids=("a", "b"),
            event="answer",
            labeler=by,
            labeler_kind="human",
            rev=1,
            answer=SECOND if n < wrong else FIRST,
            purpose="gold",
            gold_answer=FIRST,
            shown_order=(0, 1) if n % 2 else (1, 0),
            latency_ms=2000,
        )
        for n in range(wrong + right)
    ]


def settings(**changes: Any) -> RunConfig:
    return config(labels={"source": "human"}, **changes)


def test_who_guesses_is_paused_and_everybody_s_figures_are_published(queue: QueryQueue) -> None:
    watch = LabelerMonitor.of(settings(), queue)
    assert watch is not None
    events = gold(4, 1, by="bob") + gold(0, 10, by="ann") + gold(2, 1, by="cat")
    weights = watch(events)
    assert (weights["bob"], "ann" in weights) == (0.0, False)
    assert 0.1 <= weights["cat"] <= 0.5
    pauses = queue.pauses
    assert list(pauses.all()) == ["bob"]
    assert (pauses.reason("bob") or "").startswith("checks and shared answers look like guessing")
    assert published(queue.info()) == report(events)
    assert [each.state for each in published(queue.info())] == ["ok", "paused", "watch"]


def test_a_pardon_restores_weight_and_work(queue: QueryQueue) -> None:
    watch = LabelerMonitor(queue, action="pause")
    watch(gold(4, 1, by="bob"))
    queue.pauses.pardon("bob")
    assert watch(gold(6, 1, by="bob")) == {}
    assert published(queue.info())[0].state == "ok"
    assert queue.pauses.reason("bob") is None


def test_weighing_alone_pauses_nobody(queue: QueryQueue) -> None:
    assert LabelerMonitor(queue, action="weigh")(gold(4, 1, by="bob")) == {"bob": 0.0}
    assert queue.pauses.all() == {}


def test_teachers_are_watched_only_where_the_config_says_so(queue: QueryQueue) -> None:
    assert LabelerMonitor.of(config(), queue) is None
    assert LabelerMonitor.of(config(quality={"action": "weigh"}), queue) is not None
    assert LabelerMonitor.of(settings(quality={"action": "none"}), queue) is None


def test_with_the_queue_away_answers_are_weighed_all_the_same() -> None:
    away = QueryQueue("redis://127.0.0.1:1/0", run="r", connect_timeout_seconds=0.2)
    assert LabelerMonitor(away, action="pause")(gold(4, 1, by="bob")) == {"bob": 0.0}


def test_what_another_version_published_is_not_guessed_at() -> None:
    assert published({}) == []
    assert published({"labelers": '[{"name": "ann"}]'}) == []


def test_the_table_reads_well() -> None:
    lines = table(report(gold(4, 1, by="bob") + gold(0, 10, by="ann")))
    assert lines[0].split("  ")[0] == "labeler"
    assert lines[1].split() == [
        "ann",
        "10",
        "10/10",
        "(72%",
        "to",
        "100%)",
        "-",
        "-",
        "50%",
        "2.0",
        "1.00",
        "ok",
    ]
    assert lines[3] == "bob: checks and shared answers look like guessing, 347 to 1."
    assert table([]) == []


def test_answers_of_who_guesses_leave_the_fit_and_doubtful_ones_count_less(
    redis_url: str, tmp_path: Path
) -> None:
    run = Run(redis_url, tmp_path)
    verdict: dict[str, float] = {}
    trainer = run.trainer(judge=lambda events: verdict)
    run.answer("first", "second", "first", "first")
    trainer.step(0)
    assert trainer.status().trainable == 4
    assert trainer._fitter._examples.batch(_all(4)).weight is None
    verdict["ann"] = 0.25
    run.answer("first")
    trainer.step(1)
    weight = trainer._fitter._examples.batch(_all(5)).weight
    assert weight is not None
    assert weight.tolist() == [0.25] * 5
    verdict["ann"] = 0.0
    run.answer("second")
    trainer.step(2)
    assert trainer.status().trainable == 0
    assert trainer.status().answered == 6, "the budget was spent all the same"
    verdict.clear()
    run.answer("second")
    trainer.step(3)
    assert trainer.status().trainable == 7


def _all(count: int) -> Any:
    import numpy as np

    return np.arange(count)


def test_a_preference_counts_more_than_nothing(redis_url: str, tmp_path: Path) -> None:
    trainer = Run(redis_url, tmp_path).trainer()
    with pytest.raises(
        ValueError,
        match=r"counts more than 0 and at most 1, got \{'q': 0.0\}; leave it out instead",
    ):
        trainer._fitter.add([], doubts={"q": 0.0})
