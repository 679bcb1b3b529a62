"""What an admin sees and may change: labelers, the log of answers, corrections, the
live view of a run directory.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhp.labeling.page.desk import Desk, Place
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.preferences.events import EventRow
from rlhp.queue.queue import QueryQueue
from rlhp.storage.rundir import RunDir
from rlhp.types import Answer
from tests.labeling.page.parts import WEBM, Tab, ask, served
from tests.preferences.dataset_samples import PLAIN, header
from tests.queue.parts import Meddler, events


def choices(tab: Tab, **query: object) -> list[tuple[str, str, str]]:
    items = tab.get("/api/admin/preferences", **query)["items"]
    return [(item["query"], item["labeler"], item["choice"]) for item in items]


def test_the_log_shows_the_answers_that_stand_newest_first(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 4)
    for choice in ("left", "tie", "incomparable"):
        tab.answer(tab.leases()[0], choice, latency_ms=1500, note="close")
    tab.post("/api/undo")
    assert [query for query, _, _ in choices(tab)] == ["q1", "q0"]
    assert choices(tab, answer="tie") == [("q1", "local", "tie")]
    assert choices(tab, labeler="bob") == []
    assert choices(tab, offset=1, limit=1) == choices(tab)[1:]
    (item,) = tab.get("/api/admin/preferences", answer="tie")["items"]
    assert (item["latency_ms"], item["note"], item["strength"]) == (1500, "close", None)
    assert tab.http.get(item["clips"]["first"]).content == WEBM + b"q1 first"


def test_a_correction_is_a_retract_and_a_new_revision_and_may_be_repeated(
    queue: QueryQueue, tab: Tab
) -> None:
    ask(queue, 1)
    tab.answer(tab.leases()[0], "tie")
    said = {"query": "q0", "labeler": "local", "answer": "second"}
    replies = [
        tab.http.post("/api/admin/preferences/correct", json=said).json()["status"]
        for _ in range(2)
    ]
    assert replies == ["ok", "same"]
    assert choices(tab) == [("q0", "local", "second")]
    log = events(queue)
    assert [(event.event, event.rev, event.answer) for event in log] == [
        ("answer", 1, "tie"), ("retract", 1, None), ("answer", 2, "second"),
    ]  # fmt: skip
    assert log[-1].meta == {"kind": "human", "corrected_by": "local"}
    assert tab.post("/api/undo")["status"] == "no", "an admin's word stands"
    assert tab.post("/api/undo", query="q0", rev=2)["status"] == "no"
    assert (queue.stats().answered, choices(tab)) == (1, [("q0", "local", "second")])
    assert (
        tab.http.post("/api/admin/preferences/correct", json=said | {"answer": "tie"}).json()[
            "status"
        ]
        == "ok"
    )
    assert choices(tab) == [("q0", "local", "tie")]


def test_only_an_answer_that_stands_can_be_corrected(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 1)

    def corrected(query: str, labeler: str) -> str:
        said = {"query": query, "labeler": labeler, "answer": "tie"}
        return str(tab.http.post("/api/admin/preferences/correct", json=said).json()["status"])

    tab.answer(tab.leases()[0])
    assert corrected("q0", "bob") == "no"
    assert corrected("unknown", "local") == "gone"
    tab.post("/api/undo")
    assert corrected("q0", "local") == "no"
    assert len(events(queue)) == 2


def test_the_table_names_everybody_who_answered_or_may(queue: QueryQueue, tab: Tab) -> None:
    ask(queue, 3)
    tab.answer(tab.leases()[0], latency_ms=2000)
    labelers = queue.accounts
    token = labelers.add("ann", admin=True)
    with Tab(tab.link, token=token) as ann:
        rows = {row["name"]: row for row in ann.get("/api/admin/labelers")["labelers"]}
    assert sorted(rows) == ["ann", "local"]
    assert (rows["local"]["ok"], rows["local"]["state"]) == (1, "ok")
    assert 0 < rows["local"]["median_seconds"] != 2.0, "the queue's clock, not the page's word"
    assert rows["local"]["side_bias"] == 1.0
    assert (rows["ann"]["ok"], rows["ann"]["idle_seconds"], rows["ann"]["median_seconds"]) == (
        0,
        None,
        None,
    )


def test_what_left_redis_is_read_from_the_run_directory(queue: QueryQueue, tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    dataset = PreferenceDataset.create(rundir.preferences, header=header(PLAIN))
    ask(queue, 2)
    with served(queue, rundir=rundir) as link, Tab(link) as tab:
        tab.answer(tab.leases()[0], "tie")
        log = events(queue)
        dataset.add_events([EventRow.of_event(event) for event in log])
        queue.ack([event.stream_id for event in log])
        meddler = Meddler(queue)
        meddler.redis.xtrim(meddler.key("answers"), maxlen=0)
        meddler.close()
        assert choices(tab) == [("q0", "local", "tie")]
        tab.answer(tab.leases()[0], "tie")
        assert choices(tab) == [("q1", "local", "tie"), ("q0", "local", "tie")], (
            "on disk or not yet"
        )


def test_the_live_view_reads_on_where_it_left_off(queue: QueryQueue, tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    rows = [{"env_steps": 100 * n, "reward/version": n} for n in range(3)]
    rundir.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with served(queue, rundir=rundir) as link, Tab(link) as tab:
        assert tab.get("/api/live/metrics") == {"rows": rows, "next": 3}
        assert tab.get("/api/live/metrics", since=2) == {"rows": rows[2:], "next": 3}
        assert tab.get("/api/live/metrics", since=99) == {"rows": [], "next": 3}, (
            "a resumed run may have fewer"
        )


def test_a_query_that_is_unknown_has_no_facts(queue: QueryQueue) -> None:
    desk = Desk(Place(url=queue.url, run=queue.run))
    lookup = desk.queue.lookup
    assert [lookup.given("q0", labeler="ann", rev=1), lookup.deadline_ms("q0")] == [None, 0]
    with pytest.raises(ValueError, match="an answer is one of first, second, third, fourth, tie"):
        lookup.correct("q0", labeler="ann", answer="both", meta={})
    assert lookup.correct("q0", labeler="ann", answer=Answer.TIE, meta={}) == "gone"
    desk.close()
