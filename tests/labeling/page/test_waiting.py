"""The sentence that stands where the clips would be."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rlhp.labeling.page.progress import Rate, nothing_for_you, progress_of, waiting_for
from rlhp.queue.queue import QueryQueue
from rlhp.queue.records import QueueStats
from tests.labeling.page.parts import Tab, ask, human_run, served

HUMAN = {"source": "human", "budget": "100"}
WARM = {**HUMAN, "phase": "warm-up", "segments": "120", "segments_wanted": "500", "allowed": "25"}
LEARNING = {**HUMAN, "phase": "learning", "allowed": "40"}


def stats(**counts: Any) -> QueueStats:
    numbers = dict.fromkeys(
        (
            "pending",
            "leased",
            "reserved",
            "done",
            "dropped",
            "admitted",
            "asked",
            "answered",
            "unacked",
            "backlog",
            "expired",
            "lapsed",
            "checks",
            "set_aside",
        ),
        0,
    )
    return QueueStats(**{"state": "open", "oldest_age_seconds": 0.0, **numbers, **counts})


@pytest.mark.parametrize(
    ("counts", "facts", "reason", "detail"),
    [
        ({"state": "missing"}, {}, "missing", "the run is not at this Redis yet"),
        ({"state": "closed"}, HUMAN, "closed", "the run is over; thank you"),
        ({"pending": 3}, {"source": "oracle"}, "teachers", (
            "teachers answer this run: it draws no clips for people"
        )),
        ({"reserved": 1}, HUMAN, "clips", "clips of 1 query are being drawn"),
        ({"leased": 2}, HUMAN, "others", "2 queries open, all in the hands of labelers"),
        ({"asked": 100}, HUMAN, "spent", "all 100 questions of the run are answered; thank you"),
        ({"state": "draining"}, HUMAN, "draining", "the run is ending: nothing new is asked"),
        ({}, WARM, "collecting", "collecting segments: 120/500"),
        ({"asked": 25}, {**WARM, "segments": "500"}, "answered", (
            "the first answers are in: the reward is fitted"
        )),
        (
            {"asked": 40}, LEARNING, "answered",
            "all 40 questions so far are answered; more come while the policy learns",
        ),
        ({"asked": 30}, LEARNING, "empty", "the next questions are being chosen"),
        ({}, {}, "starting", "its processes are being started"),
        ({}, HUMAN, "starting", "its processes are being started"),
        ({"admitted": 3}, HUMAN, "empty", "the next questions are being chosen"),
        ({}, {**WARM, "segments": "many"}, "empty", "the next questions are being chosen"),
    ],
)  # fmt: skip
def test_why_there_is_nothing_to_answer(
    counts: dict[str, Any], facts: dict[str, str], reason: str, detail: str
) -> None:
    found = waiting_for(stats(**counts), facts)
    assert found is not None
    assert (found.reason, found.detail) == (reason, detail)
    assert nothing_for_you(stats(**counts), facts) == found


def test_nobody_waits_while_a_query_is_pending_except_whoever_has_seen_it() -> None:
    assert waiting_for(stats(pending=2), HUMAN) is None
    mine = nothing_for_you(stats(pending=2), HUMAN)
    assert mine.detail == "2 queries open, which you answered or skipped: others are asked"


def test_the_rate_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    rate = Rate()
    assert rate(5) == 0.0
    now += 30
    assert rate(20) == 30.0
    now += 55
    assert rate(20) == 0.0, "the first 15 came more than a minute ago"
    now += 1
    assert rate(19) == 0.0, "an undo is no negative rate"


def test_the_progress_tells_how_far_the_run_and_this_labeler_are() -> None:
    found = progress_of(
        stats(answered=7, pending=2),
        {**LEARNING, "env_steps": "4096"},
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
        assert said["waiting"] == {"reason": "collecting", "detail": "collecting segments: 7/60"}
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
