"""Runs that people look at: clips before every answer, and a video of the policy."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from rlhp import program
from rlhp.cli import main
from rlhp.config.schema import RunConfig
from rlhp.labeling.clips.video import first_frame
from rlhp.labeling.worker import LabelerWorker
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.clips import SIDES, Clips, media_type
from rlhp.queue.queue import QueryQueue
from rlhp.storage.rundir import RunDir
from rlhp.types import Answer, Query
from tests.labeling.clips.drawn import DOT, SIDE
from tests.labeling.parts import until
from tests.small_runs import small

CLIPS = {"width": SIDE, "height": SIDE, "policy_seconds": 1.0}


def drawn(path: Path, **changes: Any) -> RunConfig:
    """A small run whose environment can be drawn."""
    changes = {"env": {"id": DOT.id, "max_episode_steps": 20}, "clips": CLIPS} | changes
    return small(runs_dir=str(path), **changes)


class Watching:
    """A labeler that looks at both clips before it answers."""

    def __init__(self, clips: Clips) -> None:
        self._clips = clips
        self.seen: list[str] = []

    def answer(self, query: Query) -> Answer:
        for side in SIDES[:2]:
            data = self._clips.fetch(query=query.id, side=side)
            assert data is not None, "what is offered can be shown"
            assert first_frame(data).shape == (SIDE, SIDE, 3)
        self.seen.append(query.id)
        return (
            Answer.FIRST
            if query.first.obs[""][-1, 0] > query.second.obs[""][-1, 0]
            else Answer.SECOND
        )


def label(rundir: RunDir, over: threading.Event, watching: list[Watching]) -> None:
    until(lambda: rundir.redis_url() is not None or over.is_set())
    url = rundir.redis_url()
    assert url is not None
    with QueryQueue(url, run=rundir.name) as queue:
        watching.append(Watching(queue.clips))
        until(lambda: queue.state != "missing")
        LabelerWorker(queue, watching[0], name="ann", kind="human").run(over)


@pytest.mark.usefixtures("ray_session")
def test_people_are_asked_by_clips_and_the_policy_is_filmed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = drawn(tmp_path, labels={"source": "human", "budget": 8}, page={"port": 0})
    rundir = RunDir.create(config, "small")
    over, watching = threading.Event(), list[Watching]()
    labeler = threading.Thread(target=label, args=(rundir, over, watching))
    labeler.start()
    try:
        summary = program.train(rundir.config(), rundir=rundir, serial=True)
    finally:
        over.set()
        labeler.join()
    answered = {
        row.query_id
        for row in PreferenceDataset.open(rundir.preferences).events()
        if row.event == "answer"
    }
    assert summary.labels_answered >= 2, "of a budget of 8; the run waits for the first ones alone"
    assert answered <= set(watching[0].seen), "checks of the labeler among them"
    assert summary.video == str(rundir.videos / "policy.webm")
    facts = json.loads((rundir.videos / "policy.json").read_text())
    assert (facts["fps"], facts["env_steps"], facts["how"]) == (
        12,
        summary.env_steps,
        "its own render (state)",
    )
    assert len(facts["predicted"]) == 12, "one second of playback, one predicted reward per frame"
    assert facts["reward_version"] == summary.reward_version

    for name, kind in (
        ("out.webm", "video/webm"),
        ("out.mp4", "video/mp4"),
        ("out.png", "image/png"),
    ):
        assert (
            main.run(["eval", str(rundir.path), "--episodes", "1", "--video", str(tmp_path / name)])
            == 0
        )
        assert media_type((tmp_path / name).read_bytes()) == kind
        assert (
            len(json.loads((tmp_path / name).with_suffix(".json").read_text())["predicted"]) == 12
        )
    assert "video: " in capsys.readouterr().out
    assert main.run(["eval", str(rundir.path), "--video", str(tmp_path / "out.gif")]) == 2
    assert "a video ends in .webm, .mp4, .png; got 'out.gif'" in capsys.readouterr().err


@pytest.mark.usefixtures("ray_session")
def test_a_run_on_the_env_reward_is_filmed_without_predictions(tmp_path: Path) -> None:
    config = drawn(tmp_path, labels={"source": "none"}, learner={"total_env_steps": 60})
    rundir = RunDir.create(config, "small")
    summary = program.train(rundir.config(), rundir=rundir, serial=True)
    assert summary.video is not None
    facts = json.loads((rundir.videos / "policy.json").read_text())
    assert (facts["predicted"], facts["reward_version"]) == (None, None)
    assert "env_reward" not in (rundir.videos / "policy.json").read_text()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("env", "clips", "words"),
    [
        (
            "tests.environments:Drift",
            CLIPS,
            "no video of the policy: env.id='tests.environments:Drift': Drift cannot",
        ),
        (
            DOT.id,
            {**CLIPS, "timeout_seconds": 1e-3},
            "no video of the policy: the drawing process ended over it",
        ),
        (DOT.id, {**CLIPS, "policy_seconds": 0}, ""),
    ],
    ids=["undrawable", "too slow", "not wanted"],
)
def test_a_run_that_cannot_be_filmed_ends_well_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], env: str, clips: dict[str, Any], words: str
) -> None:
    settings = {
        "env": {"id": env, "max_episode_steps": 20},
        "clips": clips,
        "learner": {"total_env_steps": 60},
    }
    config = drawn(tmp_path, labels={"source": "none"}, **settings)
    rundir = RunDir.create(config, "small")
    summary = program.train(rundir.config(), rundir=rundir, serial=True)
    assert summary.video is None
    said = capsys.readouterr()
    assert words in said.out + said.err
    assert ("no video" in said.out + said.err) == bool(words)
    assert rundir.info().state == "finished"
