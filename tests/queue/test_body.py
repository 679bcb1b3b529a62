"""The body of a query: there and back, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rlhp.queue.records import BodyError, body_of, query_from, segment_ids
from rlhp.types import Query, Segment, TeacherContext

CONTEXT = TeacherContext(mean_episode_return=1.5, lowest_warmup_return=-2.0, episode_length=30.0)


def segment(name: str) -> Segment:
    return Segment(
        id=name,
        run="r",
        env_runner=0,
        episode="e",
        start=0,
        obs={"": np.zeros((3, 1), np.float32)},
        actions=np.zeros((2, 1), np.float32),
        env_reward=None,
        predicted_reward=None,
        reward_version=None,
        policy_version=0,
        env_steps=0,
        terminated=False,
        truncated=False,
    )


SEGMENTS = {name: segment(name) for name in "abcd"}


def body(names: str = "ab", **changes: Any) -> dict[str, Any]:
    query = Query(
        id="q",
        candidates=tuple(SEGMENTS[name] for name in names),
        purpose="gold",
        strategy="disagreement",
        score=0.1,
        reward_version=4,
        env_steps=123,
        context=CONTEXT,
    )
    return {**body_of(query), **changes}


def test_a_query_comes_back_from_json_as_it_was() -> None:
    query = query_from(json.loads(json.dumps(body())), SEGMENTS)
    assert body_of(query) == body()
    assert (query.first.id, query.second.id, query.context) == ("a", "b", CONTEXT)
    assert query_from(body(context=None, reward_version=None), SEGMENTS).context is None


def test_keys_added_later_are_left_alone() -> None:
    assert query_from(body(note="of a newer page"), SEGMENTS).id == "q"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schema": 3},
            "a query's body has schema 2, got 3; run the same rlhp version on both sides",
        ),
        (
            {"candidates": None},
            "a query's body names its candidates: candidates are a list of segment ids, got None",
        ),
        ({"candidates": ["e", "b"]}, "segment e of query 'q' is missing or is another one"),
        ({"candidates": ["a"]}, "query q: a query shows 2 to 4 candidates, got 1"),
        (
            {"candidates": ["a", "a"]},
            "the body of query 'q' makes no query: query q: the candidates must differ, got a "
            "twice",
        ),
        (
            {"context": {"length": 3}},
            "the body of query 'q' makes no query: .*unexpected keyword argument 'length'",
        ),
    ],
)
def test_a_body_that_makes_no_query_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BodyError, match=message):
        query_from(body(**changes), SEGMENTS)


def test_a_missing_key_is_named() -> None:
    incomplete = body()
    del incomplete["purpose"]
    with pytest.raises(BodyError, match="the body of query 'q' lacks 'purpose'"):
        query_from(incomplete, SEGMENTS)


def test_a_segment_under_another_ones_id_is_refused() -> None:
    with pytest.raises(BodyError, match="segment b of query 'q' is missing or is another one"):
        query_from(body(), {"a": SEGMENTS["a"], "b": SEGMENTS["a"]})


def test_the_ids_are_known_before_the_segments_are() -> None:
    assert segment_ids(body()) == ("a", "b")


@pytest.mark.parametrize("names", ["abc", "dbca"])
def test_a_query_of_more_candidates_comes_back_in_its_order(names: str) -> None:
    query = query_from(json.loads(json.dumps(body(names))), SEGMENTS)
    assert [each.id for each in query.candidates] == [*names]


def test_a_body_of_the_schema_of_pairs_is_read() -> None:
    old = body(schema=1, first="a", second="b")
    del old["candidates"]
    assert segment_ids(old) == ("a", "b")
    query = query_from(old, SEGMENTS)
    assert [each.id for each in query.candidates] == ["a", "b"]
    with pytest.raises(BodyError, match="candidates are a list of segment ids"):
        segment_ids(old | {"second": None})
