"""What a page does all day, through HTTP on a real socket and a real Redis."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest

from rlhp.labeling.page.desk import Desk, Place, answer_of, choice_of
from rlhp.queue.accounts import Labeler
from rlhp.queue.clips import SIDES
from rlhp.queue.queue import QueryQueue
from rlhp.types import Answer, answers_to
from tests.labeling.page.parts import WEBM, Tab, ask, served
from tests.queue.parts import Meddler, events


def test_the_page_hears_which_run_it_is_and_how_to_behave(queue: QueryQueue, tab: Tab) -> None:
    assert tab.get("/api/run") == {
        "run": queue.run,
        "env": "Hopper-v5",
        "instruction": "Prefer backflips.",
        "state": "open",
        "labeler": "local",
        "admin": True,
        "fps": 40.0,
        "strength": False,
        "undo_depth": 10,
        "history": [],
        "heartbeat_seconds": 10.0,
    }


def test_a_tab_holds_two_queries_and_asking_again_gives_the_same(
    queue: QueryQueue, tab: Tab
) -> None:
    ask(queue, 5)
    first = tab.post("/api/leases")
    assert [lease["query"] for lease in first["leases"]] == ["q0", "q1"]
    assert first["waiting"] is None
    assert [lease["token"] for lease in tab.leases()] == [
        lease["token"] for lease in first["leases"]
    ]
    assert queue.stats().leased == 2


def test_two_tabs_of_one_labeler_never_show_the_same_query(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 5)
    with Tab(tab.link, page="tab-2") as other:
        shown = [lease["query"] for each in (tab, other) for lease in each.leases()]
    assert sorted(shown) == ["q0", "q1", "q2", "q3"]


def test_an_answer_is_stored_once_with_what_was_shown(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 1)
    (lease,) = tab.leases()
    more = {
        "rev": 1,
        "strength": "slight",
        "note": "<b>both</b> fell",
        "latency_ms": 2100,
        "replays": 3,
    }
    assert [tab.answer(lease, "right", **more) for _ in range(3)] == ["ok", "same", "same"]
    (event,) = events(queue)
    order = event.meta["shown_order"]
    assert event.answer == ("second" if order == [0, 1] else "first")
    confidence = 7 if event.answer == "second" else 3
    assert dict(event.meta) == {
        "kind": "human", "shown_order": order, "latency_ms": 2100, "replays": 3,
        "confidence": confidence,
        "note": "<b>both</b> fell",
    }  # fmt: skip
    assert event.labeler == "local"


def test_the_clips_are_those_of_the_sides_and_of_nobody_elses_queries(
    queue: QueryQueue, tab: Tab
) -> None:
    ask(queue, 12)
    sides: Counter[bytes] = Counter()
    for _ in range(6):
        lease = tab.leases()[0]
        left, right = (tab.http.get(lease[side]) for side in ("left", "right"))
        assert {left.content, right.content} == {
            WEBM + f"{lease['query']} {side}".encode() for side in SIDES[:2]
        }
        assert left.headers["content-type"] == "video/webm"
        assert left.headers["cache-control"] == "private, no-store"
        tab.answer(lease, "left")
        sides[left.content.split()[-1]] += 1
        assert tab.http.get(lease["left"]).status_code == 200, "an undo shows it again"
    answers = [event.answer.value.encode() for event in events(queue) if event.answer is not None]
    assert Counter(answers) == sides, "left is what was shown on the left"
    assert tab.http.get("/api/clips/q11/left").status_code == 404
    assert tab.http.get("/api/clips/unknown/left").json() == {
        "error": "there is no such clip, or it is not yours to see"
    }


def test_sides_are_the_same_on_every_server_and_other_ones_for_other_labelers(
    queue: QueryQueue, tab: Tab
) -> None:
    names = ask(queue, 1)
    lease = tab.leases()[0]
    with served(queue) as link, Tab(link) as again:
        assert again.http.get(lease["left"]).content == tab.http.get(lease["left"]).content
    desk = Desk(Place(url=queue.url, run=queue.run))
    by_labeler = {
        desk.order(Labeler(name=f"labeler-{n}", admin=False), names[0]) for n in range(64)
    }
    by_query = {desk.order(Labeler(name="local", admin=True), f"q{n}") for n in range(64)}
    desk.close()
    assert by_labeler == by_query == {(0, 1), (1, 0)}, (
        "neither a query nor a labeler always has first on the left"
    )


@pytest.mark.parametrize(
    ("order", "answer"),
    [
        (order, answer)
        for count in (2, 3, 4)
        for order in permutations(range(count))
        for answer in answers_to(count)
    ],
)
def test_places_on_the_screen_and_answers_translate_both_ways(
    order: tuple[int, ...], answer: Answer
) -> None:
    assert answer_of(choice_of(answer, order=order), order=order) == answer


def test_four_clips_come_in_one_order_and_the_answer_is_about_the_one_that_was_named(
    queue: QueryQueue, tab: Tab
) -> None:
    ask(queue, 1, candidates=4)
    (lease,) = tab.leases()
    assert lease["candidates"][:2] == [lease["left"], lease["right"]]
    shown = [tab.http.get(clip).content.split()[-1].decode() for clip in lease["candidates"]]
    assert sorted(shown) == sorted(SIDES)
    assert tab.answer(lease, "third") == "ok"
    (event,) = events(queue)
    assert event.answer == shown[2]
    assert [SIDES[place] for place in event.meta["shown_order"]] == shown
    assert tab.post("/api/undo")["choice"] == "third"


def test_an_answer_beyond_the_candidates_is_refused_with_those_that_are_there(
    queue: QueryQueue, tab: Tab
) -> None:
    ask(queue, 1)
    (lease,) = tab.leases()
    asked = {"page": tab.page, "query": lease["query"], "token": lease["token"], "choice": "third"}
    refused = tab.http.post("/api/answers", json=asked)
    assert refused.status_code == 422
    assert "one of left, right, tie and incomparable; got third" in refused.text
    assert tab.http.get(f"/api/clips/{lease['query']}/third").status_code == 404


def test_an_undo_brings_the_query_back_with_what_was_said(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 3)
    first, second = tab.leases()
    tab.answer(first, "left")
    tab.answer(second, "tie")
    undone = tab.post("/api/undo")
    assert (undone["status"], undone["choice"]) == ("ok", "tie")
    assert (undone["lease"]["query"], undone["lease"]["rev"]) == (second["query"], 2)
    assert undone["lease"]["deadline_ms"] > 0
    assert tab.answer(undone["lease"], "right", rev=2) == "ok"
    assert tab.answer(second, "tie", rev=1) == "same", "an old reply that was lost is no new answer"
    assert tab.answer(undone["lease"], "left", rev=2) == "conflict"
    assert [event.event for event in events(queue)] == ["answer", "answer", "retract", "answer"]
    assert tab.get("/api/progress")["mine"] == 2


def test_an_undo_that_names_its_answer_may_be_repeated(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 2)
    for lease in tab.leases():
        tab.answer(lease)
    once = tab.post("/api/undo", query="q1", rev=1)
    again = tab.post("/api/undo", query="q1", rev=1)
    assert (once["status"], again["status"]) == ("ok", "same")
    assert once["lease"]["token"] == again["lease"]["token"]
    assert queue.stats().answered == 1
    tab.answer(once["lease"], "right", rev=2)
    assert tab.post("/api/undo", query="q1", rev=1)["status"] == "no", (
        "the second answer is another one"
    )
    assert queue.stats().answered == 2


def test_a_lease_says_which_revision_to_answer_with(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 1)
    (lease,) = tab.leases()
    assert lease["rev"] == 1
    tab.answer(lease)
    assert tab.get("/api/run")["history"] == [{"query": "q0", "rev": 1}]
    assert tab.post("/api/undo")["lease"]["rev"] == 2
    assert tab.get("/api/run")["history"] == []
    assert tab.post("/api/leases/release") == {"released": 1}
    (again,) = tab.leases()
    assert again["rev"] == 2
    assert tab.answer(again, rev=again["rev"]) == "ok"


def test_undoing_goes_back_ten_answers_and_no_further(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 12)
    for _ in range(12):
        tab.answer(tab.leases()[0])
    back = [tab.post("/api/undo")["status"] for _ in range(11)]
    assert back == ["ok"] * 10 + ["no"]
    assert queue.stats().answered == 2


def test_a_skip_is_recorded_and_not_offered_again(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 1)
    (lease,) = tab.leases()
    said = tab.post("/api/skips", query=lease["query"], token=lease["token"])
    assert said == {"status": "ok", "message": "done"}
    assert tab.leases() == []
    assert [event.event for event in events(queue)] == ["skip", "drop"], (
        "nobody else is here to ask"
    )


def test_a_closed_tab_gives_its_queries_back_at_once(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 3)
    tab.leases()
    assert tab.post("/api/leases/release") == {"released": 2}
    assert queue.stats().pending == 3
    with Tab(tab.link, page="tab-2") as other:
        assert [lease["query"] for lease in other.leases()] == ["q0", "q1"]


def test_a_heartbeat_keeps_what_a_tab_holds_and_says_how_much(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 1)
    tab.leases()
    assert tab.post("/api/leases/extend") == {"extended": 1}
    meddler = Meddler(queue)
    meddler.expire_leases()
    meddler.close()
    assert tab.post("/api/leases/extend") == {"extended": 0}


def test_late_and_extra_answers_are_told_apart(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 2)
    late, extra = tab.leases()
    meddler = Meddler(queue)
    meddler.expire_leases()
    meddler.close()
    assert tab.answer(late) == "late"
    (lent,) = queue.lease(labeler="bob", page="bob", n=1)
    assert lent.query == extra["query"]
    assert (
        queue.answer(query=lent.query, labeler="bob", page="bob", token=lent.token, answer="tie")
        == "ok"
    )
    said = tab.post("/api/answers", query=extra["query"], token=extra["token"], choice="left")
    assert said["status"] == "extra"
    assert said["message"] == "somebody else had answered: the answer is stored, but not counted"


def test_several_labelers_are_asked_where_several_votes_are_wanted(
    queue: QueryQueue, tab: Tab
) -> None:
    ask(queue, 1, want=2)
    assert tab.answer(tab.leases()[0]) == "ok"
    assert tab.leases() == []
    assert queue.stats().pending == 1
    (lent,) = queue.lease(labeler="bob", page="bob", n=1)
    assert (
        queue.answer(query=lent.query, labeler="bob", page="bob", token=lent.token, answer="tie")
        == "ok"
    )
    assert queue.stats().done == 1


def test_a_paused_labeler_is_told_why(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 1)
    pauses = queue.pauses
    pauses.pause("local", reason="30 of 31 answers were for the same side")
    said = tab.post("/api/leases")
    assert said["leases"] == []
    assert said["waiting"] == {
        "reason": "paused",
        "detail": "you are paused: 30 of 31 answers were for the same side",
    }
