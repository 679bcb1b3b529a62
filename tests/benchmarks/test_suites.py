"""What the suites of unseen tasks set, and that the paper's numbers are those of the
file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.rig.suites import CONFIGS, PAPER, SUITES
from rlhp.config import loading

SAID = {
    "env.id",
    "env.hide_termination",
    "env.max_episode_steps",
    "env.termination_penalty",
    "labels.budget",
    "labels.instruction",
    "query.segment_length",
    "learner.total_env_steps",
}
OF_A_BENCH = {
    "name",
    "seed",
    "runs_dir",
    "evaluation.episodes",
    "checkpoint.every_env_steps",
    "tensorboard",
    "clips.policy_seconds",
    "labels.source",
}


@pytest.mark.parametrize("suite", ["unseen-dev", "unseen-test", "unseen-flat", "pacing"])
def test_unseen_tasks_set_nothing_but_what_their_table_says(suite: str) -> None:
    default = loading.flat(loading.parse({"env": {"id": "E"}}))
    for measurement in SUITES[suite].measurements(suite):
        given = loading.flat(measurement.config())
        changed = {key for key, value in given.items() if default.get(key) != value}
        assert changed <= SAID | OF_A_BENCH, measurement.name


def test_the_papers_numbers_are_those_of_its_file() -> None:
    from_file = loading.load(CONFIGS / "paper.yaml", sets=["env.id=E"])
    assert loading.parse({"env": {"id": "E"}}, sets=PAPER) == from_file.model_copy(
        update={"name": None}
    )


def of_states() -> list[Path]:
    """Files of tasks but Atari's, which have the paper's numbers."""
    parents = ("atari", "enduro", "paper", "pong")
    files = {path: path.read_text(encoding="utf-8") for path in sorted(CONFIGS.glob("*.yaml"))}
    return [
        path
        for path, text in files.items()
        if path.stem != "paper" and not any(f"extends: {parent}.yaml" in text for parent in parents)
    ]


@pytest.mark.parametrize("path", of_states(), ids=lambda path: path.name)
def test_a_key_that_a_task_overrides_has_its_reason_beside_it(path: Path) -> None:
    section, reason = "", False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            section, reason = line.partition(":")[0], False
        reason = reason or line.strip().startswith("#")
        if (
            section in ("learner", "reward")
            and line.startswith("  ")
            and not line.strip().startswith("#")
        ):
            key = line.strip().partition(":")[0]
            assert key == "total_env_steps" or reason, f"{section}.{key}"
