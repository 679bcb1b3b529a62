"""A bridge to Label Studio: pairs of clips out as its tasks, its annotations back as a dataset.

    DIR/tasks.json      import this there: one task per pair, with the addresses of both clips
    DIR/labels.xml      paste this as the labelling interface of the project
    DIR/clips/*.webm    serve this folder, or mount it as the project's local storage

Its export in the format JSON comes back with `import_answers`, into a dataset of its own that `labels.reuse` takes:
answers reach a run through the same door as anybody's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from rlhp.errors import RlhpError
from rlhp.reward.bridges import Imported, store
from rlhp.reward.dataset import PreferenceDataset
from rlhp.reward.events import EventRow, Side
from rlhp.reward.parts import write_durably, write_json
from rlhp.types import Answer, Segment, digest, pair_id, query_id

LOCAL_FILES = "/data/local-files/?d=clips/"
"""Where Label Studio shows files of a local storage mounted one folder above `clips`."""
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
    """Tasks over the pairs that were answered in this dataset, or over `new_pairs` random ones never asked about.

    `url` is what goes in front of a clip's file name. Which segment is on the left is drawn from the query's id.
    ValueError where there is no pair, or `out` exists.
    """
    out, dataset = Path(out), PreferenceDataset.open(dataset_path)
    if out.exists():
        raise RlhpError(f"{out} exists already; choose another name, or remove it first")
    pairs = _new_pairs(dataset, new_pairs, seed=seed) if new_pairs else _answered(dataset)
    if not pairs:
        raise RlhpError(f"no pair to export in {dataset.path}: nothing was answered, or too few segments are stored")
    (out / "clips").mkdir(parents=True)
    wanted = list(dict.fromkeys(segment for _, first, second in pairs for segment in (first, second)))
    for each in wanted:
        clip = draw(dataset.segment(each))
        write_durably(out / "clips" / f"{each}.webm", lambda file, clip=clip: file.write(clip))  # type: ignore[misc]
    write_json(out / "tasks.json", [_task(*pair, url=url, instruction=instruction) for pair in pairs])
    (out / "labels.xml").write_text(_INTERFACE, encoding="utf-8")
    return Tasks(out=out, tasks=len(pairs), clips=len(wanted))


def import_answers(source: str | Path, out: str | Path, *, like: str | Path) -> Imported:
    """A new dataset at `out` from an export of the project as JSON; segments come from the dataset at `like`.

    A labeler is named `label-studio-<user>`. Cancelled annotations are skips; of several by one user on one task the
    newest stands. ValueError naming the task that is none of ours.
    """
    origin = PreferenceDataset.open(like)
    try:
        tasks = json.loads(Path(source).read_text(encoding="utf-8"))
        rows = [row for task in tasks for row in _rows(task)]
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise RlhpError(f"{source} is no JSON export of a Label Studio project: {error}") from error
    unknown = {segment for row in rows for segment in (row.first_id, row.second_id)} - set(origin.segment_ids())
    if unknown:
        raise RlhpError(f"segment {min(unknown)} is not in {origin.path}; name the run that the tasks were made from")
    if not rows:
        raise RlhpError(f"{source} holds no annotation; export the project once somebody has labelled")
    wanted = list(dict.fromkeys(segment for row in rows for segment in (row.first_id, row.second_id)))
    return store(Path(out), header=origin.header, segments=origin.segments(wanted), rows=rows)


def _answered(dataset: PreferenceDataset) -> list[tuple[str, str, str]]:
    found = {row.query_id: (row.query_id, row.first_id, row.second_id) for row in dataset.live()}
    return [pair for pair in found.values() if pair[1] in dataset and pair[2] in dataset]


def _new_pairs(dataset: PreferenceDataset, count: int, *, seed: int) -> list[tuple[str, str, str]]:
    ids, rng, taken = dataset.segment_ids(), np.random.default_rng(seed), dataset.asked_pairs()
    pairs: list[tuple[str, str, str]] = []
    for _ in range(20 * count if len(ids) > 1 else 0):  # a small dataset may hold fewer pairs than are wanted
        first, second = (ids[int(k)] for k in rng.choice(len(ids), size=2, replace=False))
        key = pair_id((first, second))
        if key not in taken and len(pairs) < count:
            taken.add(key)
            pairs.append((query_id(run="label-studio", purpose="train", segments=(first, second)), first, second))
    return pairs


def _task(query: str, first: str, second: str, *, url: str, instruction: str) -> dict[str, Any]:
    left: Side = "first" if int(digest("left", query)[0], 16) % 2 == 0 else "second"
    on_left, on_right = (first, second) if left == "first" else (second, first)
    return {
        "data": {
            "query": query, "first": first, "second": second, "shown_left": left,
            "left": f"{url}{on_left}.webm", "right": f"{url}{on_right}.webm", "instruction": instruction,
        }
    }  # fmt: skip


def _rows(task: Mapping[str, Any]) -> Iterator[EventRow]:
    data = task.get("data", {})
    missing = {"query", "first", "second", "shown_left"} - set(data)
    if missing:
        raise RlhpError(f"task {task.get('id')} lacks {', '.join(sorted(missing))}: it was not made by rlhp export")
    revisions: dict[str, int] = {}
    for annotation in sorted(task.get("annotations", ()), key=lambda each: str(each.get("created_at", ""))):
        labeler = f"label-studio-{_user(annotation)}"
        known: dict[str, Any] = {
            "query_id": data["query"], "first_id": data["first"], "second_id": data["second"], "labeler": labeler,
            "labeler_kind": "human", "shown_left": data["shown_left"], "strategy": "imported",
            "answered_at": _moment(annotation.get("created_at")), "latency_ms": _milliseconds(annotation),
        }  # fmt: skip
        if annotation.get("was_cancelled"):
            yield EventRow(event="skip", **known)
            continue
        revisions[labeler] = revisions.get(labeler, 0) + 1
        answer = _answer(_choice(annotation.get("result", ()), task=task.get("id")), left=data["shown_left"])
        yield EventRow(event="answer", answer=answer, rev=revisions[labeler], **known)


def _choice(results: Sequence[Mapping[str, Any]], *, task: object) -> str:
    ours = [each for each in results if each.get("from_name") == "preference"]
    chosen = [choice for each in ours for choice in each["value"]["choices"]]
    if len(chosen) != 1 or chosen[0] not in CHOICES:
        raise RlhpError(f"task {task}: one of {', '.join(CHOICES)} is chosen, got {chosen}; use labels.xml as it is")
    return str(chosen[0])


def _answer(choice: str, *, left: Side) -> Answer:
    if choice in ("left", "right"):
        return Answer.FIRST if (choice == "left") == (left == "first") else Answer.SECOND
    return Answer(choice)


def _user(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by", "unknown")
    return str(by.get("email", by.get("id", "unknown")) if isinstance(by, Mapping) else by)


def _moment(text: object) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if isinstance(text, str) else None


def _milliseconds(annotation: Mapping[str, Any]) -> int | None:
    seconds = annotation.get("lead_time")
    return round(1000 * seconds) if isinstance(seconds, int | float) else None
