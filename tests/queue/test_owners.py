"""One process at a time runs a run: a second is refused by name, a dead one is
replaced, a stale one is fenced off.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhp.errors import RlhpError
from rlhp.queue.queue import QueryQueue
from rlhp.storage import lease as owners
from rlhp.storage.lease import Owner, TakenOver
from tests.queue.parts import Meddler, ask, events, opened, say, take

OPENS = (
    "import sys, time; from rlhp.queue.queue import QueryQueue; from rlhp.storage.lease import "
    "Owner\n"
    "queue = QueryQueue(sys.argv[1], run=sys.argv[2])\n"
    "queue.open(cap=9, config_sha256='c0ffee', owner=Owner.here(sys.argv[3]), run_id=sys.argv[4])\n"
    "print('open', flush=True); time.sleep(100)"
)


def here(directory: str = "/runs/demo") -> Owner:
    """This process, as the owner of a directory."""
    return Owner.here(directory)


def elsewhere(directory: str = "/runs/demo") -> Owner:
    """A process of another machine, of which nobody here can know whether it lives."""
    return dataclasses.replace(here(directory), host="far", machine="far boot", pid=77)


def another(queue: QueryQueue, **more: Any) -> QueryQueue:
    """The same run, opened by somebody else."""
    queue = QueryQueue(queue.url, run=queue.run)
    queue.open(cap=9, config_sha256="c0ffee", **more)
    return queue


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits looks often."""
    monkeypatch.setattr(owners, "LOOK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(owners, "WATCH_SECONDS", 0.05)


def test_a_second_owner_is_told_who_the_first_is(tmp_path: Path, redis_url: str) -> None:
    name = f"two-{time.monotonic_ns()}"
    command = [sys.executable, "-c", OPENS, redis_url, name, str(tmp_path), "one"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        queue = QueryQueue(redis_url, run=name)
        for more in (
            {},
            {"resume": True},
            {"resume": True, "take_over": True},
            {"run_id": "one", "resume": True},
        ):
            with pytest.raises(RlhpError) as refused:
                queue.open(cap=9, config_sha256="c0ffee", owner=here("/elsewhere"), **more)
            said = str(refused.value)
            assert all(
                word in said
                for word in (name, f"process {first.pid} on ", str(tmp_path), "since 20")
            )
            assert "stop that process first, or choose another name" in said
        with pytest.raises(RlhpError, match=rf"another run of the name {name}.*{tmp_path}.*--name"):
            queue.open(cap=9, config_sha256="c0ffee", owner=here(), run_id="two", resume=True)
        first.kill()
        first.wait()
        began = time.monotonic()
        queue.open(
            cap=9, config_sha256="c0ffee", owner=here(str(tmp_path)), run_id="one", resume=True
        )
        assert time.monotonic() - began < owners.LEASE_SECONDS / 2, (
            "nobody waits for the lease of a dead process"
        )
        queue.close()
        with pytest.raises(RlhpError, match="another run of the name"):
            queue.open(cap=9, config_sha256="c0ffee", owner=here(), run_id="two")
        queue.open(cap=9, config_sha256="c0ffee", owner=here("/moved"), run_id="one", resume=True)


def test_an_owner_of_another_host_is_refused_when_it_is_heard_of(
    queue: QueryQueue, meddler: Meddler, quick: None
) -> None:
    queue.close()
    first = another(queue, owner=elsewhere())
    with pytest.raises(RlhpError, match=r"process 77 on far in /runs/demo, since .*--take-over"):
        another(queue, owner=here())
    said: list[str] = []
    with pytest.raises(RlhpError, match="process 77 on far in /runs/demo"):
        another(queue, resume=True, owner=here(), say=lambda text: beats(said, text, first))
    assert len(said) == 1
    assert "process 77 on far" in said[0]
    assert ask(first) == "ok"


def beats(said: list[str], text: str, queue: QueryQueue) -> None:
    """Whoever waits has said so; the owner gives a sign."""
    said.append(text)
    time.sleep(0.002)
    assert queue.beat()


def test_an_owner_of_another_host_that_stays_silent_is_replaced(
    queue: QueryQueue, meddler: Meddler, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.close()
    another(queue, owner=elsewhere())
    meddler.redis.hincrby(meddler.key("meta"), "owner_beat", -61_000)
    second = another(queue, resume=True, owner=elsewhere("/shared"))
    monkeypatch.setattr(owners, "LEASE_SECONDS", 0.2)
    # by a clock that was set back since
    meddler.redis.hincrby(meddler.key("meta"), "owner_beat", 3_600_000)
    third = another(queue, resume=True, owner=here(), say=lambda text: None)
    assert third.beat()
    with pytest.raises(TakenOver):
        second.beat()


def test_an_owner_that_only_seems_silent_keeps_its_run(
    queue: QueryQueue, meddler: Meddler, quick: None
) -> None:
    queue.close()
    first = another(queue, owner=elsewhere())
    # by a clock that was set ahead since
    meddler.redis.hincrby(meddler.key("meta"), "owner_beat", -3_600_000)
    said: list[str] = []
    with pytest.raises(RlhpError, match="process 77 on far in /runs/demo"):
        another(queue, resume=True, owner=here(), say=lambda text: beats(said, text, first))
    assert said
    assert ask(first) == "ok"


def test_take_over_does_not_wait(queue: QueryQueue) -> None:
    queue.close()
    another(queue, owner=elsewhere())
    assert another(queue, resume=True, owner=here(), take_over=True).beat()


FENCED: dict[str, Callable[[QueryQueue], Any]] = {
    "read": lambda queue: queue.events(consumer="reward-trainer"),
    "ack": lambda queue: queue.ack(["1-1"]),
    "ask": lambda queue: ask(queue, "late"),
    "publish": lambda queue: queue.check_owner(),
    "facts": lambda queue: queue.set_info({"env": "other"}),
    "beat": lambda queue: queue.beat(),
    "sweep": lambda queue: queue.sweep(),
    "trim": lambda queue: queue.trim(),
    "drop": lambda queue: queue.drop(query="q"),
    "set aside": lambda queue: queue.set_aside({"1-1": "why"}),
    "recall": lambda queue: queue.recall([{"id": "x", "pair": "x", "by": []}]),
    "close": lambda queue: queue.close(),
    "rewind": lambda queue: queue.counters.rewind({}),
    "count": lambda queue: queue.counters.count({}),
}


@pytest.mark.parametrize("call", FENCED)
def test_a_stale_owner_changes_and_reads_nothing(
    queue: QueryQueue, meddler: Meddler, call: str
) -> None:
    # of its own process, with the token it was given
    role = QueryQueue(queue.url, run=queue.run, owner=queue.owner)
    ask(queue)
    assert say(queue, take(queue)) == "ok"
    another(queue, resume=True)
    before = {key: meddler.redis.dump(key) for key in meddler.redis.keys(meddler.key("*"))}
    for stale in (queue, role):
        with pytest.raises(TakenOver, match=r"process \d+ on .*nothing more"):
            FENCED[call](stale)
    after = {key: meddler.redis.dump(key) for key in meddler.redis.keys(meddler.key("*"))}
    assert before == after


def test_the_answers_are_kept_for_the_new_owner(queue: QueryQueue) -> None:
    ask(queue, "a")
    ask(queue, "b")
    lease = take(queue)
    assert say(queue, take(queue)) == "ok"
    assert [event.query for event in queue.events(consumer="reward-trainer")] == ["a"]
    new = another(queue, resume=True)
    assert say(QueryQueue(queue.url, run=queue.run), take(new)) == "ok", (
        "labelers own nothing and notice nothing"
    )
    assert lease.query == "a"
    found = [event.query for event in new.events(consumer="reward-trainer")]
    found += [event.query for event in new.events(consumer="reward-trainer")]
    assert found == ["a", "b"]


def test_a_closed_run_and_one_that_redis_has_lost_belong_to_nobody(
    queue: QueryQueue, meddler: Meddler
) -> None:
    queue.close()
    new = another(queue)
    with pytest.raises(TakenOver):
        queue.beat()
    meddler.redis.delete(meddler.key("meta"))
    assert not new.beat()
    with pytest.raises(RlhpError, match="the server lost its data"):
        ask(new)


def test_a_damaged_owner_is_named_as_far_as_it_is_known(redis_url: str) -> None:
    queue = opened(redis_url)
    meddler = Meddler(queue)
    meddler.redis.hset(meddler.key("meta"), mapping={"owner": "x", "owner_who": '{"host": "far"'})
    with pytest.raises(TakenOver, match="an unknown host"):
        queue.beat()
    meddler.close()
    assert events(QueryQueue(queue.url, run=queue.run)) == []
