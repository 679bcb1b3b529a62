"""The end of a run: answers that its reward trainer left at the queue are stored, or
the run has not finished.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import redis

from rlhp.errors import RlhpError
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.queue import QueryQueue
from rlhp.run.leftovers import nothing_left, refuse_renamed
from rlhp.storage.lease import TakenOver
from rlhp.storage.rundir import RunDir
from tests.run.parts import answer, ask, run_in


@pytest.fixture
def run(redis_url: str, tmp_path: Path) -> tuple[RunDir, QueryQueue]:
    """A run whose reward trainer has read two answers, stored none, and says nothing
    any more.
    """
    rundir, queue = run_in(tmp_path, redis_url)
    ask(rundir, queue, 4)
    answer(queue, 4)
    silent = QueryQueue(queue.url, run=queue.run, owner=queue.owner)
    assert len(silent.events(consumer="reward-trainer", count=2)) == 2
    return rundir, queue


@pytest.fixture
def said() -> list[str]:
    return []


def test_what_a_silent_trainer_left_is_stored_at_the_end(
    run: tuple[RunDir, QueryQueue], said: list[str]
) -> None:
    rundir, queue = run
    with rundir.running(), nothing_left(queue, rundir, say=said.append):
        pass
    assert PreferenceDataset.open(rundir.preferences).counts()["answers"] == 4
    assert queue.stats().backlog == 0
    assert rundir.info().state == "finished"
    assert len(said) == 1
    assert said[0].startswith("4 answers")


def test_an_end_that_could_not_store_them_says_so_and_how_they_are_got(
    run: tuple[RunDir, QueryQueue], said: list[str]
) -> None:
    rundir, queue = run
    events = rundir.preferences / "events"
    events.rename(aside := rundir.preferences / "away")
    events.write_text("a file in its place")
    with rundir.running(), nothing_left(queue, rundir, say=said.append):
        pass
    info = rundir.info()
    assert info.state == "interrupted"
    assert info.error is not None
    for text in (said[0], info.error):
        assert "4 answers are not on disk" in text
        assert f"rlhp train --resume {rundir.path}" in text
    events.unlink()
    aside.rename(events)
    with rundir.running(), nothing_left(queue, rundir, say=said.append):
        pass
    assert (rundir.info().state, queue.stats().backlog) == ("finished", 0)


def test_a_run_that_fails_says_what_is_not_stored(
    run: tuple[RunDir, QueryQueue], said: list[str]
) -> None:
    rundir, queue = run
    with pytest.raises(KeyError), nothing_left(queue, rundir, say=said.append):
        raise KeyError
    assert len(said) == 1
    assert said[0].startswith("4 answers")
    assert f"rlhp train --resume {rundir.path}" in said[0]
    assert queue.stats().backlog == 4


def test_whoever_was_replaced_stores_nothing(
    run: tuple[RunDir, QueryQueue], said: list[str]
) -> None:
    rundir, queue = run
    QueryQueue(queue.url, run=queue.run).open(cap=9, config_sha256="c0ffee", resume=True)
    with pytest.raises(TakenOver), nothing_left(queue, rundir, say=said.append):
        pass
    assert said == []
    assert PreferenceDataset.open(rundir.preferences).counts()["answers"] == 0


def test_odd_entries_at_the_end_are_set_aside(
    run: tuple[RunDir, QueryQueue], said: list[str]
) -> None:
    rundir, queue = run
    with redis.Redis.from_url(queue.url) as client:
        client.xadd(f"rlhp:{{{queue.run}}}:answers", {"pid": os.getpid()})
    with rundir.running(), nothing_left(queue, rundir, say=said.append):
        pass
    assert (rundir.info().state, queue.stats().set_aside, queue.stats().backlog) == (
        "finished",
        1,
        0,
    )


def test_a_renamed_run_is_not_resumed_past_the_answers_that_wait_under_its_old_name(
    run: tuple[RunDir, QueryQueue],
) -> None:
    rundir, queue = run
    renamed = RunDir(rundir.path.rename(rundir.path.with_name("renamed")))
    refuse_renamed(queue.url, renamed)  # the queue is another run's of that name
    queue.open(cap=9, config_sha256="c0ffee", resume=True, run_id=renamed.info().id)
    with pytest.raises(RlhpError, match=f"called {rundir.name}, and 4 answers"):
        refuse_renamed(queue.url, renamed)
    with nothing_left(queue, renamed, say=str):
        pass
    refuse_renamed(queue.url, renamed)
