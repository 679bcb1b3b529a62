"""The clip renderer at a real queue: what was admitted is drawn, and nothing is offered
before.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from rlhp.config.schema import ClipsConfig
from rlhp.errors import RlhpError
from rlhp.labeling.clips.painter import Painter
from rlhp.labeling.clips.renderer import HOPELESS, ClipRenderer
from rlhp.labeling.clips.video import first_frame
from rlhp.queue.clips import SIDES, Clips
from rlhp.queue.queue import QueryQueue
from rlhp.queue.records import body_of
from rlhp.types import Query, Segment, encode
from tests.labeling.clips.bucket import bucket
from tests.labeling.clips.drawn import BLANK, DOT, FAIL, dots

SETTINGS = ClipsConfig(width=64, height=64)


@pytest.fixture(scope="module")
def painter() -> Iterator[Painter]:
    with Painter(DOT, SETTINGS) as one:
        yield one


@pytest.fixture
def clips(queue: QueryQueue) -> Clips:
    return queue.clips


@pytest.fixture
def renderer(queue: QueryQueue, clips: Clips, painter: Painter) -> ClipRenderer:
    return ClipRenderer(queue, clips, painter, cap_mb=64)


def reserve(queue: QueryQueue, name: str, *, first: Segment | None = None, **more: Any) -> None:
    """A query that waits for its clips."""
    one, other = first or dots(1, 2, name=f"{name}-a"), dots(30, 31, name=f"{name}-b")
    query = Query(id=name, candidates=(one, other))
    payloads = more.pop("payloads", {each.id: encode(each) for each in (one, other)})
    put = queue.put(
        query=name,
        candidates=(one.id, other.id),
        body=body_of(query),
        payloads=payloads,
        ready=False,
        **more,
    )
    assert put == "ok"


def drain(renderer: ClipRenderer) -> int:
    count = 0
    while turn := renderer.step():
        count += turn
    return count


def offered(queue: QueryQueue, labeler: str = "ann") -> list[str]:
    return [lease.query for lease in queue.lease(labeler=labeler, page=f"{labeler}-page", n=2)]


def answer(queue: QueryQueue) -> None:
    for lease in queue.lease(labeler="ann", page="ann-page", n=2):
        queue.answer(
            query=lease.query, labeler="ann", page="ann-page", token=lease.token, answer="first"
        )


def test_a_reserved_query_is_offered_once_both_clips_are_there(
    queue: QueryQueue, clips: Clips, renderer: ClipRenderer
) -> None:
    reserve(queue, "q0")
    reserve(queue, "q1", only="ben")
    assert offered(queue) == offered(queue, "ben") == []
    assert drain(renderer) == 2
    assert offered(queue) == ["q0"]
    assert offered(queue, "ben") == ["q1"], "checks of one labeler are drawn as well"
    pictures = []
    for side in SIDES[:2]:
        data = clips.fetch(query="q0", side=side)
        assert data is not None
        pictures.append(first_frame(data))
    assert pictures[0].std() > 10
    assert abs(pictures[0].astype(int) - pictures[1]).max() > 100, "two different segments"
    status = renderer.status()
    assert (status.metrics["clips/ready"], status.metrics["clips/dropped"]) == (2, 0)


def test_those_asked_first_are_drawn_first(queue: QueryQueue, clips: Clips) -> None:
    for number in range(5):
        reserve(queue, f"q{number}")
    assert [waiting.query for waiting in clips.waiting(3)] == ["q0", "q1", "q2"]


def test_what_cannot_be_drawn_is_dropped_with_why_and_the_next_is_offered(
    queue: QueryQueue, renderer: ClipRenderer, caplog: pytest.LogCaptureFixture
) -> None:
    reserve(queue, "good")
    reserve(queue, "blank", first=dots(BLANK, BLANK, name="blank-a"))
    for number in range(2):
        reserve(queue, f"fails{number}", first=dots(FAIL, name=f"fails{number}-a"))
    reserve(queue, "lost", payloads={})
    drain(renderer)
    assert offered(queue) == ["good"]
    stats = queue.stats()
    assert (stats.asked, stats.dropped, stats.open) == (1, 4, 1), (
        "no budget pays for what nobody can see"
    )
    events = queue.events(consumer="trainer")
    reasons = {event.query: event.meta["reason"] for event in events}
    assert reasons["blank"] == "no clip: every frame is the same single color"
    assert reasons["fails0"] == reasons["fails1"] == "no clip: RuntimeError: the brush broke"
    assert reasons["lost"] == "no clip: segment lost-a is not in the queue"
    assert renderer.status().metrics["clips/dropped"] == 4
    assert len([line for line in caplog.messages if "the brush broke" in line]) == 1, (
        "one reason, one line"
    )


def test_where_nothing_can_ever_be_drawn_the_run_is_told(
    queue: QueryQueue, renderer: ClipRenderer
) -> None:
    for number in range(HOPELESS):
        reserve(queue, f"q{number}", first=dots(FAIL, name=f"a{number}"))
    with pytest.raises(
        RlhpError, match=r"none of the first 10 queries could be drawn.*the brush broke; cure that"
    ):
        drain(renderer)


def test_a_renderer_killed_while_drawing_loses_nothing(queue: QueryQueue, clips: Clips) -> None:
    with Painter(DOT, SETTINGS) as painter:
        renderer = ClipRenderer(queue, clips, painter, cap_mb=64)
        reserve(queue, "q0")
        drain(renderer)
        assert painter.pid is not None
        os.kill(painter.pid, signal.SIGKILL)
        reserve(queue, "q1")
        clips.store(query="q1", side="first", data=b"half a clip of the one who died")
        drain(ClipRenderer(queue, clips, painter, cap_mb=64))
    assert offered(queue) == ["q0", "q1"]
    data = clips.fetch(query="q1", side="first")
    assert data is not None
    first_frame(data)


def test_clips_of_finished_queries_make_room_and_their_undo_ends(
    queue: QueryQueue, clips: Clips, renderer: ClipRenderer
) -> None:
    for number in range(3):
        reserve(queue, f"q{number}")
    drain(renderer)
    answer(queue)  # q0 and q1
    used = 10**9 - clips.room(10**9)
    assert used > 0
    assert clips.room(used - 1) > 0
    assert [clips.fetch(query=f"q{number}", side="first") is None for number in range(3)] == [
        True,
        False,
        False,
    ]
    assert queue.undo(query="q0", labeler="ann", page="ann-page", rev=1).status == "no"
    assert queue.undo(query="q1", labeler="ann", page="ann-page", rev=1).status == "ok"


def test_without_room_nothing_is_drawn_until_somebody_answers(
    queue: QueryQueue, clips: Clips, painter: Painter, caplog: pytest.LogCaptureFixture
) -> None:
    renderer = ClipRenderer(queue, clips, painter, cap_mb=1)
    for name in ("q0", "q1"):
        reserve(queue, name)
        clips.store(query=name, side="first", data=bytes(600_000))
    assert renderer.step() == renderer.step() == 0
    assert caplog.messages.count(
        "clips fill clips.cap_mb=1: no more are drawn until queries are answered"
    ) == 1, "it is said once"  # fmt: skip
    queue.drop(query="q0")
    assert drain(renderer) == 1
    assert offered(queue) == ["q1"]


def test_a_clip_that_never_got_ready_goes_and_one_that_did_stays(
    queue: QueryQueue, clips: Clips, renderer: ClipRenderer
) -> None:
    reserve(queue, "q0")
    clips.store(query="other", side="first", data=b"x")
    drain(renderer)
    with redis.Redis.from_url(queue.url) as client:
        ages = [client.ttl(f"rlhp:{{{queue.run}}}:clip:{name}:first") for name in ("other", "q0")]
    assert 590 < ages[0] <= 600
    assert ages[1] == -1


def test_clips_and_undo_of_a_finished_query_end_when_the_run_says_so(
    queue: QueryQueue, clips: Clips, renderer: ClipRenderer
) -> None:
    queue.set_info({"keep_ms": "0"})
    reserve(queue, "q0")
    drain(renderer)
    answer(queue)
    queue.sweep()
    assert clips.fetch(query="q0", side="first") is not None, (
        "the answer is not on the trainer's disk yet"
    )
    queue.ack([event.stream_id for event in queue.events(consumer="trainer")])
    queue.sweep()
    assert clips.fetch(query="q0", side="first") is None
    assert queue.undo(query="q0", labeler="ann", page="ann-page", rev=1).status == "no"


def test_clips_may_lie_in_a_directory(queue: QueryQueue, painter: Painter, tmp_path: Path) -> None:
    store = (tmp_path / "a store").as_uri()
    writer, reader = queue.clips.kept_in(store), queue.clips
    reserve(queue, "q0")
    assert drain(ClipRenderer(queue, writer, painter, cap_mb=1)) == 1
    files = sorted((tmp_path / "a store" / queue.run).iterdir())
    assert [file.name for file in files] == ["q0-first", "q0-second"]
    assert reader.fetch(query="q0", side="second") == files[1].read_bytes()
    assert offered(queue) == ["q0"]
    assert writer.prune() == 0
    # as the queue does half an hour after the query
    with redis.Redis.from_url(queue.url) as client:
        client.delete(f"rlhp:{{{queue.run}}}:clip:q0:first")
    assert writer.prune() == 1
    files[1].unlink()
    assert reader.fetch(query="q0", side="first") is None
    assert reader.fetch(query="q0", side="second") is None, "deleted by somebody else"


def test_clips_may_lie_in_a_bucket_and_wait_while_it_is_away(
    queue: QueryQueue, painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.setenv(name, "true")
    with bucket() as server:
        writer = queue.clips.kept_in(server.url("shelf/clips"))
        renderer = ClipRenderer(queue, writer, painter, cap_mb=1)
        reserve(queue, "q0")
        assert drain(renderer) == 1
        kept = server.objects[f"shelf/clips/{queue.run}/q0-second"]
        reader = queue.clips
        assert reader.fetch(query="q0", side="second") == kept
        first_frame(kept)
        with redis.Redis.from_url(queue.url) as client:
            client.delete(f"rlhp:{{{queue.run}}}:clip:q0:first")
        assert writer.prune() == 1
        assert f"shelf/clips/{queue.run}/q0-first" not in server.objects
    reserve(queue, "q1")
    with pytest.raises(ConnectionError, match="no clip can be stored at s3://shelf/clips/"):
        drain(renderer)
    assert queue.stats().reserved == 1, "it waits, as for a Redis that is away"


@pytest.mark.parametrize("store", ["/tmp/clips", "file://relative", "http://somewhere/clips"])
def test_a_store_that_is_none_is_refused(queue: QueryQueue, store: str) -> None:
    with pytest.raises(ValueError, match="is file:///directory or s3://bucket/prefix, got"):
        queue.clips.kept_in(store)
