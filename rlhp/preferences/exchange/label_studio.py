"""A bridge to Label Studio: pairs of clips out as its tasks, its annotations back as a
dataset.

    DIR/tasks.json      import this there: one task per pair, with the addresses of both clips
    DIR/labels.xml      paste this as the labeling interface of the project
    DIR/clips/*.webm    serve this folder, or mount it as the project's local storage

Its export in the format JSON comes back with `import_answers`, into a dataset of its
own that `labels.reuse` takes: answers reach a run through the same door as anybody's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rlhp.errors import RlhpError, one_line
from rlhp.files import new_directory, read_regular, write_whole
from rlhp.preferences.dataset import PreferenceDataset, refuse_occupied
from rlhp.preferences.events import EventRow, Side, order_of
from rlhp.preferences.exchange.imitation import Imported, store
from rlhp.preferences.parts import write_json
from rlhp.types import Answer, Segment, comparison_id, digest, query_id

LOCAL_FILES = "/data/local-files/?d=clips/"
"""Where Label Studio shows files of a local storage mounted one folder above `clips`.
"""
CHOICES = ("left", "right", "tie", "incomparable")
_INTERFACE = """<View>
  <Header value="$instruction"/>
  <View style="display: flex; gap: 1em">
    <Video name="left" value="$left"/>
    <Video name="right" value="$right"/>
  </View>
  <Choices name="preference" toName="left" choice="single" required="true" showInline="true">
    <Choice value="left" hotkey="1"/>
    <Choice value="right" hotkey="2"/>
    <Choice value="tie" hotkey="3"/>
    <Choice value="incomparable" hotkey="4"/>
  </Choices>
</View>
"""

Draw = Callable[[Segment], bytes]
"""A segment as the bytes of a WebM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tasks:
    """What an export wrote."""

    out: Path
    tasks: int
    clips: int
    wider: int = 0
    """Answered queries of more than two candidates, which are left out."""


def export_tasks(
    dataset_path: str | Path,
    out: str | Path,
    *,
    draw: Draw,
    instruction: str = "",
    url: str = LOCAL_FILES,
    new_pairs: int = 0,
    seed: int = 0,
) -> Tasks:
    """Tasks over the pairs that were answered in this dataset, or over `new_pairs`
    random ones never asked about.

    `url` is what goes in front of a clip's file name. Which segment is on the left is
    drawn from the query's id. ValueError where there is no pair, or `out` exists.
    """
    out, dataset = Path(out), PreferenceDataset.open(dataset_path)
    if out.exists():
        raise RlhpError(f"{out} exists already; choose another name, or remove it first")
    pairs, wider = _answered(dataset)
    if new_pairs:
        pairs, wider = _new_pairs(dataset, new_pairs, seed=seed), 0
    if not pairs:
        raise RlhpError(
            f"no pair to export in {dataset.path}: nothing was answered, or too few segments are "
            "stored"
        )
    wanted = list(
        dict.fromkeys(segment for _, first, second in pairs for segment in (first, second))
    )
    with new_directory(out) as torn:
        (torn / "clips").mkdir()
        for each in wanted:
            write_whole(torn / "clips" / _clip_name(each), draw(dataset.segment(each)))
        write_json(
            torn / "tasks.json", [_task(*pair, url=url, instruction=instruction) for pair in pairs]
        )
        write_whole(torn / "labels.xml", _INTERFACE)
    return Tasks(out=out, tasks=len(pairs), clips=len(wanted), wider=wider)


def import_answers(source: str | Path, out: str | Path, *, like: str | Path) -> Imported:
    """A new dataset at `out` from an export of the project as JSON; segments come from
    the dataset at `like`.

    A labeler is named `label-studio-<user>`. Cancelled annotations are skips; of
    several by one user on one task the newest stands. RlhpError naming the file, and
    the task that is none of ours or holds what is no answer.
    """
    out = Path(out)
    refuse_occupied(out)
    origin = PreferenceDataset.open(like)
    try:
        rows = list(_rows(_tasks(Path(source))))
    except _Odd as error:
        raise RlhpError(f"{source}: {error}") from error.__cause__
    named = dict.fromkeys(segment for row in rows for segment in row.candidate_ids)
    unknown = named.keys() - set(origin.segment_ids())
    if unknown:
        raise RlhpError(
            f"segment {min(unknown)} is not in {origin.path}; name the run that the tasks were "
            "made from"
        )
    if not rows:
        raise RlhpError(
            f"{source} holds no annotation; export the project once somebody has labeled"
        )
    return store(out, header=origin.header, segments=origin.segments(named), rows=rows)


def _answered(dataset: PreferenceDataset) -> tuple[list[tuple[str, str, str]], int]:
    """Query, first and second of all pairs that were answered, and how many other
    queries were.
    """
    found = {row.query_id: row.candidate_ids for row in dataset.live()}
    pairs = [
        (query, ids[0], ids[1])
        for query, ids in found.items()
        if len(ids) == 2 and ids[0] in dataset and ids[1] in dataset
    ]
    return pairs, sum(len(ids) > 2 for ids in found.values())


def _new_pairs(dataset: PreferenceDataset, count: int, *, seed: int) -> list[tuple[str, str, str]]:
    ids, rng, taken = dataset.segment_ids(), np.random.default_rng(seed), dataset.asked()
    pairs: list[tuple[str, str, str]] = []
    # a small dataset may hold fewer pairs than are wanted
    for _ in range(20 * count if len(ids) > 1 else 0):
        first, second = (ids[int(k)] for k in rng.choice(len(ids), size=2, replace=False))
        key = comparison_id((first, second))
        if key not in taken and len(pairs) < count:
            taken.add(key)
            pairs.append(
                (
                    query_id(run="label-studio", purpose="train", candidates=(first, second)),
                    first,
                    second,
                )
            )
    return pairs


def _task(query: str, first: str, second: str, *, url: str, instruction: str) -> dict[str, Any]:
    left: Side = "first" if int(digest("left", query)[0], 16) % 2 == 0 else "second"
    on_left, on_right = (first, second) if left == "first" else (second, first)
    return {
        "data": {
            "query": query,
            "first": first,
            "second": second,
            "shown_left": left,
            "left": url + _clip_name(on_left),
            "right": url + _clip_name(on_right),
            "instruction": instruction,
        }
    }


def _clip_name(segment: str) -> str:
    """An id of ours as it is; one that was imported may be a path, and gets a name that
    leads nowhere else.
    """
    plain = re.fullmatch("[0-9A-Za-z_-]{1,100}", segment)
    return f"{segment if plain else digest('clip', segment)}.webm"


class _Odd(ValueError):
    """What a file holds and no export of a project with our interface has, in words."""


def _tasks(source: Path) -> list[tuple[str, Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Each task's name for people, its data and its annotations."""
    data = read_regular(source)
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _Odd(f"is no JSON export of a Label Studio project: {one_line(error)}") from error
    if not isinstance(found, list) or not all(isinstance(task, dict) for task in found):
        raise _Odd(
            "is no JSON export of a Label Studio project, which is a list of tasks; export in the "
            "format JSON"
        )
    return [_parts(task, number) for number, task in enumerate(found, start=1)]


def _parts(
    task: Mapping[str, Any], number: int
) -> tuple[str, Mapping[str, Any], list[Mapping[str, Any]]]:
    name, data = f"task {task.get('id', f'number {number}')}", task.get("data")
    known = data if isinstance(data, dict) else {}
    missing = sorted(
        key for key in _DATA if not isinstance(known.get(key), str) or not known[key].isprintable()
    )
    if missing:
        raise _Odd(f"{name} lacks {', '.join(missing)}: it was not made by rlhp export")
    if known["shown_left"] not in ("first", "second") or known["first"] == known["second"]:
        raise _Odd(
            f"{name} shows two segments, first or second on the left; got {known['shown_left']!r}"
        )
    annotations = task.get("annotations", [])
    if not isinstance(annotations, list) or not all(isinstance(each, dict) for each in annotations):
        raise _Odd(
            f"{name}: its annotations are a list of objects; export in the format JSON, not "
            "JSON-MIN"
        )
    return name, known, annotations


_DATA = ("query", "first", "second", "shown_left")


def _rows(
    tasks: Sequence[tuple[str, Mapping[str, Any], list[Mapping[str, Any]]]],
) -> Iterator[EventRow]:
    """Each annotation's event. A task that was imported twice is one query, whose
    annotations count on.
    """
    by_query: dict[
        str, list[tuple[datetime | None, str, Mapping[str, Any], Mapping[str, Any]]]
    ] = {}
    sides: dict[str, tuple[str, str]] = {}
    for task, data, said in tasks:
        if sides.setdefault(data["query"], (data["first"], data["second"])) != (
            data["first"],
            data["second"],
        ):
            raise _Odd(
                f"{task} is query {data['query']} again, about other segments; keep one of the two"
            )
        found = [(_moment(each.get("created_at"), task=task), task, data, each) for each in said]
        by_query.setdefault(data["query"], []).extend(found)
    for given in by_query.values():
        revisions: dict[str, int] = {}
        for moment, task, data, annotation in sorted(
            given, key=lambda each: each[0] or _BEFORE_ALL
        ):
            labeler = f"label-studio-{_user(annotation)}"
            known: dict[str, Any] = {
                "query_id": data["query"],
                "candidate_ids": (data["first"], data["second"]),
                "labeler": labeler,
                "labeler_kind": "human",
                "shown_order": order_of(data["shown_left"]),
                "strategy": "imported",
                "answered_at": moment,
                "latency_ms": _milliseconds(annotation),
            }
            cancelled = annotation.get("was_cancelled", False)
            if cancelled not in (True, False, None):
                raise _Odd(
                    f"{task}: was_cancelled is true or false, got {cancelled!r}; export in the "
                    "format JSON"
                )
            if cancelled:
                yield EventRow(event="skip", **known)
                continue
            revisions[labeler] = revisions.get(labeler, 0) + 1
            answer = _answer(_choice(annotation.get("result"), task=task), left=data["shown_left"])
            yield EventRow(event="answer", answer=answer, rev=revisions[labeler], **known)


_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


def _choice(results: object, *, task: str) -> str:
    """What was chosen with the tag of labels.xml, or with Label Studio's own Pairwise
    tag.
    """
    chosen: list[Any] = []
    for each in results if isinstance(results, list) else []:
        value = each.get("value") if isinstance(each, dict) else None
        if not isinstance(value, dict):
            continue
        if each.get("type") == "pairwise":
            chosen.append(value.get("selected"))
        elif each.get("from_name") == "preference":
            choices = value.get("choices")
            chosen += choices if isinstance(choices, list) else [choices]
    if len(chosen) != 1 or chosen[0] not in CHOICES:
        raise _Odd(
            f"{task}: one of {', '.join(CHOICES)} is chosen, got {chosen}; use labels.xml as it "
            "is, or a Pairwise tag"
        )
    return str(chosen[0])


def _answer(choice: str, *, left: Side) -> Answer:
    if choice in ("left", "right"):
        return Answer.FIRST if (choice == "left") == (left == "first") else Answer.SECOND
    return Answer(choice)


def _user(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by", "unknown")
    name = str(by.get("email", by.get("id", "unknown")) if isinstance(by, Mapping) else by)
    return name if name.isprintable() else ascii(name)


def _moment(text: object, *, task: str) -> datetime | None:
    """With its offset, since texts of different offsets do not sort by time; without
    one it is UTC.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(str(text).strip())
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Odd(
            f"{task}: created_at is a time such as 2026-01-02T03:04:05Z, got {text!r}"
        ) from None


def _milliseconds(annotation: Mapping[str, Any]) -> int | None:
    """None where it is not known, or longer than the column holds, as of a page that
    was left open.
    """
    seconds = annotation.get("lead_time")
    if (
        not isinstance(seconds, int | float)
        or isinstance(seconds, bool)
        or not 0 <= seconds < 2_000_000
    ):
        return None
    return round(1000 * seconds)
