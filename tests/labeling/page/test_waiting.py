"""The sentence that stands where the clips would be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rlhp.labeling.page.progress import facts_of, progress_of, waiting_for
from rlhp.queue.queue import QueryQueue
from tests.labeling.page.parts import Tab, ask, human_run, served
from tests.queue.parts import stats

HUMAN = {"source": "human", "budget": "100"}
WARM = {**HUMAN, "phase": "warm-up", "segments": "120", "segments_wanted": "500", "allowed": "25"}
LEARNING = {**HUMAN, "phase": "learning", "allowed": "40"}


@pytest.mark.parametrize(
    ("counts", "facts", "reason", "detail"),
    [
        ({"state": "missing"}, {}, "missing", "the run is not at this Redis yet"),
        ({"state": "closed"}, HUMAN, "closed", "the run is over: nothing more is asked"),
        ({"pending": 3}, {"source": "oracle"}, "teachers", (
            "teachers answer this run: it draws no clips for people"
        )),
        ({"reserved": 1}, HUMAN, "clips", "clips of 1 query are being drawn"),
        ({"leased": 2}, HUMAN, "others", "2 queries open, all in the hands of labelers"),
        ({"asked": 100}, HUMAN, "spent", (
            "the label budget is spent: all 100 queries of the run are asked"
        )),
        ({"state": "draining"}, HUMAN, "draining", "the run is ending: nothing new is asked"),
        ({}, WARM, "collecting", (
            "a random policy collects segments to ask about: 120/500"
        )),
        ({"asked": 25}, {**WARM, "segments": "500"}, "answered", (
            "the first answers are in: the reward is fitted"
        )),
        (
            {"asked": 40}, LEARNING, "answered",
            "all 40 queries that the schedule allows by now are asked and none is open: more come "
            "while the policy learns",
        ),
        ({"asked": 30}, LEARNING, "empty", "the next queries are being chosen"),
        ({}, {}, "starting", "its processes are being started, and nothing is measured yet"),
        ({}, HUMAN, "starting", "its processes are being started, and nothing is measured yet"),
        ({"admitted": 3}, HUMAN, "empty", "the next queries are being chosen"),
        ({}, {**WARM, "segments": "many"}, "empty", "the next queries are being chosen"),
    ],
)  # fmt: skip
def test_why_there_is_nothing_to_answer(
    counts: dict[str, Any], facts: dict[str, str], reason: str, detail: str
) -> None:
    known = facts_of(stats(**counts), facts)
    found = waiting_for(known)
    assert found is not None
    assert (found.reason, found.detail) == (reason, detail)
    assert waiting_for(replace(known, turned_away=True)) == found


def test_nobody_waits_while_a_query_is_pending_except_whoever_has_seen_it() -> None:
    known = facts_of(stats(pending=2), HUMAN)
    assert waiting_for(known) is None
    mine = waiting_for(replace(known, turned_away=True))
    assert mine is not None
    assert mine.detail == "2 queries open, which you answered or skipped: others are asked"


def test_a_run_whose_process_is_gone_says_so_unless_something_is_left_to_answer() -> None:
    found = waiting_for(facts_of(stats(asked=30), LEARNING, gone=True))
    assert found is not None
    assert (found.reason, found.detail) == (
        "gone",
        "the process of the run is gone without a word: nothing is asked until it goes on",
    )
    assert waiting_for(facts_of(stats(asked=30, pending=2), LEARNING, gone=True)) is None
    over = waiting_for(facts_of(stats(state="closed"), LEARNING, gone=True))
    assert over is not None
    assert over.reason == "closed"


def test_the_progress_tells_how_far_the_run_and_this_labeler_are() -> None:
    found = progress_of(
        facts_of(stats(answered=7, pending=2), {**LEARNING, "env_steps": "4096"}),
        labeler="ann",
        per_minute=3.5,
    )
    assert found.model_dump() == {
        "answered": 7,
        "mine": 0,
        "budget": 100,
        "open": 2,
        "pending": 2,
        "per_minute": 3.5,
        "waiting": None,
        "env_steps": 4096,
        "reward_version": 0,
    }


def test_the_page_hears_what_the_driver_wrote(redis_url: str) -> None:
    with human_run(redis_url) as queue, served(queue) as link, Tab(link) as tab:
        queue.set_info(
            {"phase": "warm-up", "segments": "7", "segments_wanted": "60", "env_steps": "210"}
        )
        said = tab.post("/api/leases")
        assert said["waiting"] == {
            "reason": "collecting",
            "detail": "a random policy collects segments to ask about: 7/60",
        }
        assert said["progress"]["env_steps"] == 210
        assert tab.get("/api/progress")["waiting"] == said["waiting"]
        queue.close()
        assert tab.post("/api/leases")["waiting"]["reason"] == "closed"
        assert tab.get("/api/run")["state"] == "closed"


def test_a_run_of_teachers_leases_nothing_that_has_no_clips(redis_url: str) -> None:
    with human_run(redis_url, source="oracle") as queue, served(queue) as link, Tab(link) as tab:
        ask(queue, 1)
        assert tab.post("/api/leases")["waiting"]["reason"] == "teachers"
        assert queue.stats().pending == 1


def test_a_run_that_is_not_there_yet_is_waited_for(redis_url: str) -> None:
    with QueryQueue(redis_url, run="coming") as queue, served(queue) as link, Tab(link) as tab:
        assert tab.get("/api/run")["state"] == "missing"
        assert tab.post("/api/leases")["waiting"]["reason"] == "missing"
