"""What the disk knows of queries, told to a queue that does not: it is older than the disk, or forgets by its rules.

recollection(dataset.events()) -> QueryQueue.recall -> nobody is asked again what is answered on disk
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from rlhp.reward.events import EventRow
from rlhp.reward.live import is_corrected, is_reused, live
from rlhp.types import digest, pair_id


def recollection(rows: Iterable[EventRow], *, again: bool = False) -> list[dict[str, Any]]:
    """One entry for `lua/recall.lua` per query of this run that anything is known of.

    With `again` a query that the queue has forgotten is known to it again, as a finished one.
    """
    by_query: dict[str, list[EventRow]] = defaultdict(list)
    for row in rows:
        if not is_reused(row):  # another run's queries
            by_query[row.query_id].append(row)
    return [_query(mine, again=again) for mine in by_query.values()]


def _query(rows: Sequence[EventRow], *, again: bool) -> dict[str, Any]:
    one = rows[0]
    labelers = dict.fromkeys(row.labeler for row in rows if row.labeler is not None)
    # A check is addressed to the one labeler who answered it, and not a pair that is asked once.
    only = next(iter(labelers), "") if one.purpose != "train" else ""
    pair = digest("pair", only, one.query_id) if only else pair_id((one.first_id, one.second_id))
    standing = {row.labeler: row for row in live(rows, purpose=None, extra=True)}
    body = {
        "purpose": one.purpose, "strategy": one.strategy, "score": one.score, "reward_version": one.selected_version,
        "env_steps": one.env_steps, "first": one.first_id, "second": one.second_id,
    }  # fmt: skip
    hidden = {"gold": one.gold_answer, "predicted_first": one.predicted_first}
    return {
        "id": one.query_id,
        "pair": pair,
        "only": only,
        "first": one.first_id,
        "second": one.second_id,
        "body": json.dumps(body),
        "hidden": json.dumps({name: value for name, value in hidden.items() if value is not None}),
        "made": str(round(one.made_at.timestamp() * 1000)) if one.made_at is not None else "0",
        "answered": any(row.how != "extra" for row in standing.values()),
        "dropped": any(row.event == "drop" for row in rows),
        "again": again,
        "by": [_labeler(name, rows, standing.get(name)) for name in labelers],
    }


def _labeler(name: str, rows: Sequence[EventRow], stands: EventRow | None) -> dict[str, Any]:
    mine = [row for row in rows if row.labeler == name]
    answers = {str(row.rev): row.answer for row in mine if row.event == "answer"}
    newest = max((row for row in mine if row.event == "answer"), key=lambda row: row.rev, default=None)
    rev = 0 if newest is None else newest.rev
    return {
        "labeler": name,
        "rev": rev,
        "answers": answers,
        "live": stands is not None and stands.rev == rev,
        "how": "ok" if newest is None else newest.how,
        "corrected": stands is not None and is_corrected(stands),
        "skipped": any(row.event == "skip" for row in mine),
    }
