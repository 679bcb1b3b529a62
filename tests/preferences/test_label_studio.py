"""Pairs that go through Label Studio come back as answers about the same segments."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rlhp.preferences.dataset import PreferenceDataset
from rlhp.preferences.exchange.label_studio import CHOICES, export_tasks, import_answers
from rlhp.types import Answer, Segment, comparison_id
from tests.preferences.dataset_samples import answer, header, segment


def draw(one: Segment) -> bytes:
    return f"clip of {one.id}".encode()


@pytest.fixture
def dataset(tmp_path: Path) -> PreferenceDataset:
    made = PreferenceDataset.create(tmp_path / "preferences", header=header())
    s = [segment(number) for number in range(8)]
    made.add_segments(s)
    made.add_events([answer(s[n], s[n + 1]) for n in range(0, 8, 2)])
    return made


def annotated(tasks: list[dict[str, Any]], choices: list[str], **more: Any) -> list[dict[str, Any]]:
    """What Label Studio exports as JSON."""
    for number, (task, choice) in enumerate(zip(tasks, choices, strict=True)):
        result = [
            {
                "from_name": "preference",
                "to_name": "left",
                "type": "choices",
                "value": {"choices": [choice]},
            }
        ]
        known = {
            "id": number,
            "completed_by": 7,
            "result": result,
            "was_cancelled": False,
            "lead_time": 2.5,
            "created_at": "2026-01-02T03:04:05.000000Z",
        }
        task.setdefault("annotations", []).append(known | more)
    return tasks


def test_every_choice_comes_back_as_the_answer_it_means(
    tmp_path: Path, dataset: PreferenceDataset
) -> None:
    done = export_tasks(
        dataset.path, tmp_path / "out", draw=draw, instruction="Which <runs> better?"
    )
    assert (done.tasks, done.clips) == (4, 8)
    tasks = json.loads((done.out / "tasks.json").read_text())
    for task in tasks:
        for side in ("left", "right"):
            name = task["data"][side].removeprefix("/data/local-files/?d=clips/")
            first = task["data"][
                "first" if (side == "left") == (task["data"]["shown_left"] == "first") else "second"
            ]
            assert (done.out / "clips" / name).read_bytes() == f"clip of {first}".encode()
    source = tmp_path / "project.json"
    source.write_text(json.dumps(annotated(tasks, ["left", "right", "tie", "incomparable"])))
    again = PreferenceDataset.open(
        import_answers(source, tmp_path / "again", like=dataset.path).out
    )
    left = [task["data"]["shown_left"] for task in tasks]
    meant = [left[0], "second" if left[1] == "first" else "first", "tie", "incomparable"]
    assert [(p.query, p.answer) for p in again.preferences()] == [
        (task["data"]["query"], Answer(said)) for task, said in zip(tasks, meant, strict=True)
    ]
    row = again.events()[0]
    assert (row.labeler, row.labeler_kind, row.latency_ms, row.shown_left) == (
        "label-studio-7",
        "human",
        2500,
        left[0],
    )


def test_new_pairs_were_never_asked_about(tmp_path: Path, dataset: PreferenceDataset) -> None:
    done = export_tasks(
        dataset.path, tmp_path / "out", draw=draw, new_pairs=10, url="https://clips.example/"
    )
    tasks = [task["data"] for task in json.loads((done.out / "tasks.json").read_text())]
    assert (
        len({comparison_id((task["first"], task["second"])) for task in tasks} - dataset.asked())
        == 10
    )
    assert all(task["left"].startswith("https://clips.example/") for task in tasks)


def test_the_interface_offers_the_four_choices() -> None:
    from rlhp.preferences.exchange.label_studio import _INTERFACE

    tree = ElementTree.fromstring(_INTERFACE)
    assert tuple(each.attrib["value"] for each in tree.iter("Choice")) == CHOICES
    assert {each.attrib["value"] for each in tree.iter("Video")} == {"$left", "$right"}


def test_second_thoughts_and_cancelled_tasks(tmp_path: Path, dataset: PreferenceDataset) -> None:
    export_tasks(dataset.path, tmp_path / "out", draw=draw)
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    annotated(
        tasks,
        ["tie"] * 4,
        created_at="2026-01-02T04:00:00Z",
        completed_by={"email": "ann@lab.example"},
    )
    annotated(tasks, ["incomparable"] * 4, completed_by={"email": "ann@lab.example"})
    annotated(tasks, ["tie"] * 4, was_cancelled=True, completed_by={"id": 3})
    (tmp_path / "p.json").write_text(json.dumps(tasks))
    again = PreferenceDataset.open(
        import_answers(tmp_path / "p.json", tmp_path / "again", like=dataset.path).out
    )
    assert [(p.answer, p.labeler) for p in again.preferences()] == [
        (Answer.TIE, "label-studio-ann@lab.example")
    ] * 4
    assert sum(row.event == "skip" for row in again.events()) == 4


def test_what_is_none_of_ours_is_refused(tmp_path: Path, dataset: PreferenceDataset) -> None:
    source = tmp_path / "p.json"

    def refused(text: str, complaint: str) -> None:
        source.write_text(text)
        with pytest.raises(ValueError, match=complaint):
            import_answers(source, tmp_path / "again", like=dataset.path)
        assert not (tmp_path / "again").exists()

    refused("<html>", "is no JSON export of a Label Studio project")
    refused("[3]", "is no JSON export of a Label Studio project")
    refused(
        '[{"id": 4, "data": {"text": "a"}}]',
        "task 4 lacks first, query, second, shown_left: it was not made by",
    )
    export_tasks(dataset.path, tmp_path / "out", draw=draw)
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    refused(json.dumps(tasks), "holds no annotation")
    refused(
        json.dumps(annotated(tasks[:1], ["up"])),
        r"one of left, right, tie, incomparable is chosen, got \['up'\]",
    )
    tasks = annotated(json.loads((tmp_path / "out" / "tasks.json").read_text())[:1], ["tie"])
    tasks[0]["annotations"][0]["was_cancelled"] = "false"
    refused(json.dumps(tasks), "task .*was_cancelled is true or false, got 'false'")
    tasks[0]["annotations"][0]["was_cancelled"] = None
    tasks[0]["data"]["first"] = "elsewhere"
    refused(
        json.dumps(tasks),
        "segment elsewhere is not in .*; name the run that the tasks were made from",
    )
    with pytest.raises(ValueError, match="exists already"):
        export_tasks(dataset.path, tmp_path / "out", draw=draw)


def test_other_tags_other_clocks_and_a_task_that_is_there_twice(
    tmp_path: Path, dataset: PreferenceDataset
) -> None:
    export_tasks(dataset.path, tmp_path / "out", draw=draw)
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())[:1]
    left = tasks[0]["data"]["shown_left"]
    again = json.loads(json.dumps(tasks))
    # an hour before midnight: the first of the two
    annotated(tasks, ["tie"], created_at="2026-01-02T01:00:00+05:00")
    picked = {"from_name": "pairs", "type": "pairwise", "value": {"selected": "left"}}
    again[0]["annotations"] = [
        {"completed_by": 7, "result": [picked], "created_at": "2026-01-02T00:30:00+00:00"}
    ]
    (tmp_path / "p.json").write_text(json.dumps([*again, *tasks]))
    done = PreferenceDataset.open(
        import_answers(tmp_path / "p.json", tmp_path / "again", like=dataset.path).out
    )
    assert [(row.rev, row.answer) for row in done.events()] == [(1, Answer.TIE), (2, Answer(left))]
    again[0]["annotations"][0]["created_at"] = "yesterday"
    (tmp_path / "p.json").write_text(json.dumps(again))
    with pytest.raises(ValueError, match=r"p\.json: task .*created_at .*'yesterday'"):
        import_answers(tmp_path / "p.json", tmp_path / "other", like=dataset.path)


def test_a_segment_named_as_a_path_is_drawn_into_the_folder_of_clips(tmp_path: Path) -> None:
    made = PreferenceDataset.create(tmp_path / "preferences", header=header())
    s = [
        replace(segment(number), id=name)
        for number, name in enumerate(("../../out", "/tmp/x", "a" * 300, "ours"))
    ]
    made.add_segments(s)
    made.add_events([answer(s[0], s[1]), answer(s[2], s[3])])
    done = export_tasks(made.path, tmp_path / "out", draw=draw, url="")
    tasks = [task["data"] for task in json.loads((done.out / "tasks.json").read_text())]
    clips = {each[side] for each in tasks for side in ("left", "right")}
    assert {path.name for path in (done.out / "clips").iterdir()} == clips
    assert len(clips) == 4
    assert "ours.webm" in clips
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "preferences"]


def test_an_export_that_cannot_be_drawn_leaves_nothing(
    tmp_path: Path, dataset: PreferenceDataset
) -> None:
    def fails(one: Segment) -> bytes:
        raise ValueError(f"segment {one.id} carries no picture")

    for _ in range(2):
        with pytest.raises(ValueError, match="carries no picture"):
            export_tasks(dataset.path, tmp_path / "out", draw=fails)
        assert [path.name for path in tmp_path.iterdir()] == ["preferences"]
