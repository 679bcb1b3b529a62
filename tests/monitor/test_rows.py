"""Rows of metrics: what the roles say goes into them under its names, and nothing else."""

from __future__ import annotations

from rlhp.monitor.rows import RunStatus, status_row
from rlhp.storage.metrics import METRICS
from rlhp.system.roles import RewardModelStatus
from tests.queue.parts import stats
from tests.run.roles import query_actor, reward_trainer


def test_a_row_has_the_metrics_of_all_and_none_of_their_facts() -> None:
    status = RunStatus(
        query_actor=query_actor(waiting_for="no service", memory_mb=200.0),
        reward_trainer=reward_trainer(version=2, published_steps=300, fitted_steps=310.0),
        reward_models={
            "reward_model_0": RewardModelStatus(version=2, memory_mb=150.0),
            "reward_model_1": RewardModelStatus(version=2, memory_mb=170.0),
        },
        queue=stats(asked=5, pending=1, reserved=1),
        labels_per_minute=6.0,
    )
    row = status_row(status, env_steps=340)
    assert row.keys() <= METRICS.keys()
    assert (row["segments/pool"], row["labels/asked"], row["queue/pending"]) == (7, 5, 2)
    assert row["reward/staleness_steps"] == 40
    assert (row["memory/reward_model_mb"], row["memory/query_actor_mb"]) == (170.0, 200.0)
    assert status_row(RunStatus(), env_steps=340) == {}, "the control arm asks nobody"


def test_a_reward_that_is_ahead_of_the_policy_is_not_stale() -> None:
    resumed = RunStatus(reward_trainer=reward_trainer(version=2, published_steps=300))
    assert status_row(resumed, env_steps=200)["reward/staleness_steps"] == 0
    unpublished = RunStatus(reward_trainer=reward_trainer())
    assert "reward/staleness_steps" not in status_row(unpublished, env_steps=200)
