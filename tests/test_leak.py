"""The env reward never reaches the learner: change it beyond recognition, and no batch
changes by one bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlhp import program
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.storage.rundir import RunDir
from tests import environments
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")

Batch = list[dict[str, Any]]
HUGE = 1e6
TASKS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "huge": {"reward_scale": HUGE},
    "noise": {"noise": 3.0},
}


@pytest.fixture(scope="module")
def batches() -> Iterator[list[Batch]]:
    """Everything handed to a learner while this lasts."""
    seen: list[Batch] = []
    update = LearnerGroup.update

    def watched(self: Any, *, episodes: list[SingleAgentEpisode], **more: Any) -> Any:
        seen.append([contents(episode) for episode in episodes])
        return update(self, episodes=episodes, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LearnerGroup, "update", watched)
        yield seen


def contents(episode: SingleAgentEpisode) -> dict[str, Any]:
    """Copies of all that a chunk holds."""
    extra = (Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS)
    assert set(episode.extra_model_outputs) == set(extra)
    assert all(info == {} for info in episode.get_infos())
    assert not episode.custom_data
    return {
        "facts": (episode.id_, episode.t_started, episode.is_terminated, episode.is_truncated),
        "obs": np.array(episode.get_observations()),
        "actions": np.array(episode.get_actions()),
        "rewards": np.array(episode.get_rewards()),
        **{name: np.array(episode.get_extra_model_outputs(name)) for name in extra},
    }


def train(
    task: str, where: Path, batches: list[Batch], **changes: Any
) -> tuple[RunDir, list[Batch], list[float]]:
    """A run whose env reward is changed, always of the same name."""
    config = small(
        runs_dir=str(where / task.replace(" ", "-")), env={"kwargs": TASKS[task]}, **changes
    )
    rundir = RunDir.create(config, "leak")
    del batches[:], environments.PAID[:]
    program.train(config, rundir=rundir, serial=True)
    return rundir, list(batches), list(environments.PAID)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return bool(
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    return bool(one == other)


def differing(one: list[Batch], other: list[Batch]) -> set[str]:
    """What two lists of batches differ in, bit for bit."""
    if [len(batch) for batch in one] != [len(batch) for batch in other]:
        return {"number of episodes"}
    return {
        name
        for mine, theirs in zip(one, other, strict=True)
        for left, right in zip(mine, theirs, strict=True)
        for name in left
        if not same(left[name], right[name])
    }


@pytest.mark.parametrize("teacher", ["ByObservation", "ByQueryId"])
def test_batches_do_not_change_with_the_env_reward_when_the_answers_do_not(
    teacher: str, tmp_path: Path, batches: list[Batch]
) -> None:
    labels = {"teacher": {"name": f"tests.environments:{teacher}"}}
    plain_run, plain, plain_paid = train("as it is", tmp_path, batches, labels=labels)
    assert len(plain) >= 5, "enough updates after the warm-up"
    answers = [
        (row.query_id, row.answer) for row in PreferenceDataset.open(plain_run.path).events()
    ]
    for task in ("huge", "noise"):
        rundir, learned, paid = train(task, tmp_path, batches, labels=labels)
        assert len(paid) == len(plain_paid)
        assert not set(paid) & set(plain_paid), "the env reward is another one at every step"
        assert [
            (row.query_id, row.answer) for row in PreferenceDataset.open(rundir.path).events()
        ] == answers
        assert differing(plain, learned) == set(), task


def test_nothing_in_a_training_episode_is_an_env_reward(
    tmp_path: Path, batches: list[Batch]
) -> None:
    _, learned, paid = train("huge", tmp_path, batches)
    chunks = [chunk for batch in learned for chunk in batch]
    largest = max(
        float(np.abs(chunk[name]).max()) for chunk in chunks for name in chunk if name != "facts"
    )
    assert largest < 100 < min(map(abs, paid)), (
        "neither an env reward, nor a sum or a difference of some"
    )
    rewards = np.concatenate([chunk["rewards"] for chunk in chunks])
    assert np.isfinite(rewards).all()
    assert len(set(rewards)) > 100

    _, learned, paid = train("as it is", tmp_path, batches)
    rewards = np.concatenate([chunk["rewards"] for batch in learned for chunk in batch])
    assert not set(rewards) & set(np.array(paid, np.float32))


@pytest.mark.parametrize("normalized", [True, False])
def test_the_same_comparison_finds_the_env_reward_where_it_is_learned_from(
    normalized: bool, tmp_path: Path, batches: list[Batch]
) -> None:
    control = {"labels": {"source": "none"}, "learner": {"normalize_control_reward": normalized}}
    _, plain, paid = train("as it is", tmp_path, batches, **control)
    _, noise, _ = train("noise", tmp_path, batches, **control)
    assert "rewards" in differing(plain, noise)
    if not normalized:
        assert set(plain[0][0]["rewards"]) <= set(np.array(paid, np.float32))
