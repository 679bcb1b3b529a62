"""The JSON body of a query in the queue, and the way back to a `Query`.

The two segments travel beside it as bytes, so a body stays small and says only which ones to fetch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rlhp.types import Query, Segment, TeacherContext

SCHEMA = 1
"""Version of the body; another one is refused rather than guessed at."""


class BodyError(ValueError):
    """A body, or the segments with it, that do not make a query."""


def body_of(query: Query) -> dict[str, Any]:
    """Plain data for the queue: everything of `query` but its segments, which it names by id."""
    return {
        "schema": SCHEMA,
        "query": query.id,
        "first": query.first.id,
        "second": query.second.id,
        "purpose": query.purpose,
        "strategy": query.strategy,
        "score": query.score,
        "reward_version": query.reward_version,
        "env_steps": query.env_steps,
        "context": None if query.context is None else asdict(query.context),
    }


def segment_ids(body: Mapping[str, Any]) -> tuple[str, str]:
    """Ids of the first and second segment; BodyError where the body is of another schema or names none."""
    if body.get("schema") != SCHEMA:
        raise BodyError(
            f"a query's body has schema {SCHEMA}, got {body.get('schema')!r}; run the same rlhp version on both sides"
        )
    first, second = body.get("first"), body.get("second")
    if not isinstance(first, str) or not isinstance(second, str):
        raise BodyError(f"a query's body names two segments, got first={first!r} and second={second!r}")
    return first, second


def query_from(body: Mapping[str, Any], segments: Mapping[str, Segment]) -> Query:
    """The query `body` describes; BodyError where the body or a segment is not what it should be."""
    first, second = segment_ids(body)
    for id_ in (first, second):
        if id_ not in segments or segments[id_].id != id_:
            raise BodyError(f"segment {id_} of query {body.get('query')!r} is missing or is another one")
    try:
        return Query(
            id=body["query"],
            first=segments[first],
            second=segments[second],
            purpose=body["purpose"],
            strategy=body["strategy"],
            score=body["score"],
            reward_version=body["reward_version"],
            env_steps=body["env_steps"],
            context=None if body["context"] is None else TeacherContext(**body["context"]),
        )
    except KeyError as error:
        raise BodyError(f"the body of query {body.get('query')!r} lacks {error}") from None
    except (TypeError, ValueError) as error:
        raise BodyError(f"the body of query {body.get('query')!r} makes no query: {error}") from error
