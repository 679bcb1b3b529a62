"""What the pages show is what is there: the files under examples/ run, and every
command and link exists.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.selection import CloseCalls
from examples.teacher import NearerTheMiddle
from rlhp import program
from rlhp.cli.main import rlhp
from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.reward.versions import RewardStore
from rlhp.storage.rundir import RunDir
from rlhp.types import Answer, Preference, Query

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CLIENT = "label_client.py"  # has a page of its own, docs/labeling.md, and a test of its own
ELSEWHERE = ("__init__.py", CLIENT)
SHOWN = [
    path
    for path in sorted((ROOT / "examples").iterdir())
    if path.is_file() and path.name not in ELSEWHERE
]
WHOLE = ROOT / "examples" / "line.yaml"
LONGEST = 25

BUDGET = 12
SHRUNK = [
    "name=example",
    f"labels.budget={BUDGET}",
    "labels.initial_share=0.5",
    "rollout.num_envs_per_env_runner=4",
    "reward.pretrain_epochs=2",
    "reward.publish_every_steps=400",
    "query.segment_length=10",
    "tensorboard=false",
    "learner.total_env_steps=1600",
    "learner.train_batch_size=400",
    "learner.num_epochs=1",
    "evaluation.episodes=1",
]


def train(config: RunConfig) -> tuple[RunDir, PreferenceDataset]:
    rundir = RunDir.create(config, "example")
    summary = program.train(rundir.config(), rundir=rundir, serial=True)
    assert summary.reward_version > 1
    assert summary.labels_answered == BUDGET
    return rundir, PreferenceDataset.open(rundir.preferences)


def alone(tmp_path: Path, **parts: Any) -> RunConfig:
    """The example environment and nothing else of one's own but `parts`, by the keys of
    line.yaml.
    """
    env = loading.load(WHOLE).env.model_dump()
    return loading.parse({"env": env, **parts}, sets=[*SHRUNK, f"runs_dir={tmp_path}"])


def as_the_teacher_says(preferences: list[Preference]) -> bool:
    teacher = NearerTheMiddle(margin=0.02)
    queries = [Query(id=each.query, candidates=(each.first, each.second)) for each in preferences]
    return [each.answer for each in preferences] == [teacher.answer(query) for query in queries]


@pytest.mark.usefixtures("ray_session")
def test_all_examples_train_together_and_no_env_reward_leaves_the_env_runner(
    tmp_path: Path,
) -> None:
    rundir, dataset = train(loading.load(WHOLE, sets=[*SHRUNK, f"runs_dir={tmp_path}"]))
    assert as_the_teacher_says(dataset.preferences())
    assert all(segment.env_reward is None for segment in dataset.segments(dataset.segment_ids()))
    newest = RewardStore(rundir.path / "reward").newest()
    assert newest is not None
    assert newest.architecture.module == "examples.reward:Polynomial"
    assert {row.strategy for row in dataset.events()} == {
        "examples.selection:CloseCalls",
        "random",
    }, "a quarter is random"


@pytest.mark.usefixtures("ray_session")
def test_the_environment_trains_alone(tmp_path: Path) -> None:
    _, dataset = train(alone(tmp_path))
    answers = {
        each.answer: each.first.true_return - each.second.true_return
        for each in dataset.preferences()
    }
    assert answers[Answer.FIRST] > 0 > answers[Answer.SECOND]  # the oracle's, by env rewards


@pytest.mark.usefixtures("ray_session")
def test_the_teacher_answers_alone(tmp_path: Path) -> None:
    teacher = {"name": "examples.teacher:NearerTheMiddle", "kwargs": {"margin": 0.02}}
    _, dataset = train(alone(tmp_path, labels={"teacher": teacher}))
    assert as_the_teacher_says(dataset.preferences())


@pytest.mark.usefixtures("ray_session")
def test_the_reward_model_fits_alone(tmp_path: Path) -> None:
    rundir, _ = train(
        alone(
            tmp_path,
            reward={"module": "examples.reward:Polynomial", "module_kwargs": {"degree": 3}},
        )
    )
    newest = RewardStore(rundir.path / "reward").newest()
    assert newest is not None
    assert newest.state["members.0.linear.weight"].shape == (1, 6)


@pytest.mark.usefixtures("ray_session")
def test_the_selection_chooses_alone(tmp_path: Path) -> None:
    _, dataset = train(alone(tmp_path, query={"selection": "examples.selection:CloseCalls"}))
    chosen = [row for row in dataset.events() if row.selected_version is not None]
    assert chosen
    assert all(row.score <= 0 for row in chosen)


def test_the_selection_prefers_what_the_members_together_cannot_tell_apart() -> None:
    returns = np.array([[[1.0, 1.0], [3.0, 0.0]], [[2.0, 1.0], [0.0, 1.0]]])  # [M, C, 2]
    assert CloseCalls().rank([], returns, np.random.default_rng(0)).tolist() == [-0.5, -1.0]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_the_page_shows_the_file_verbatim(path: Path) -> None:
    page = (ROOT / "docs" / "labeling_with_teachers.md").read_text(encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    assert f"```{'yaml' if path.suffix == '.yaml' else 'python'}\n{text}```" in page
    assert len(text.splitlines()) < LONGEST


def commands(page: Path) -> list[list[str]]:
    """The `rlhp` lines in the page's fences, as words without their comments."""
    fences = re.findall(
        r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = [line for fence in fences for line in fence.splitlines() if line.startswith("rlhp ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_on_a_page_can_be_given(page: Path) -> None:
    for name, *arguments in commands(page):
        assert name in rlhp.commands, f"rlhp {name}"
        with rlhp.commands[name].make_context(name, arguments) as context:
            config = context.params.get("config") or context.params.get("target")
            if (
                config is not None
                and config.suffix == ".yaml"
                and config.parent.name in ("configs", "examples")
            ):
                loading.load(ROOT / config, sets=context.params.get("sets", ()))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_on_a_page_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    linked = {target.partition("#")[0] for target in re.findall(r"\]\((?!http)([^)]+)\)", text)}
    assert {target for target in linked if not (page.parent / target).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"`(\w+/[\w/]+\.(?:py|lua|md|yaml))`", page.read_text(encoding="utf-8")))
    assert {
        name for name in named if not any((root / name).exists() for root in (ROOT, ROOT / "rlhp"))
    } == set()


def test_the_readme_makes_what_the_makefile_makes() -> None:
    targets = set(
        re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    rules = set(
        re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert {"demo", "test"} <= targets <= rules
