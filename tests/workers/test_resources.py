"""Whether a cluster has room for a run: said with what is missing, before anything
hangs.
"""

from __future__ import annotations

import pytest

from rlhp.config.schema import RunConfig
from rlhp.workers.resources import bundles, local_cpus, missing, refuse_too_small
from tests.small_runs import small


def wide(**rollout: object) -> RunConfig:
    return small(rollout={"num_env_runners": 4, **rollout}, ray={"wait_seconds": 0})


def test_a_run_reserves_one_bundle_per_process() -> None:
    config = small(
        rollout={"num_env_runners": 3, "num_cpus_per_env_runner": 0.5, "resources": {"rollout": 1}},
        learner={"num_learners": 1},
        reward={"device": "cuda", "replicas": 2},
    )
    gpu = {"GPU": 0.1}
    assert bundles(config) == [
        *[("env_runner", {"CPU": 0.5, "rollout": 1})] * 3,
        ("learner", {"CPU": 1}),
        ("reward_trainer", gpu), ("reward_model", gpu), ("reward_model", gpu),
    ]  # fmt: skip
    assert local_cpus(config) == 4
    assert local_cpus(wide(min_env_runners=1)) == 5, "a local Ray has room for those who join later"


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([{"CPU": 2.0}], "its 1 node has 2 CPU: 2 CPU missing for 2 env runners"),
        ([{"CPU": 3.0}, {"CPU": 0.5}], "its 2 nodes have 3.5 CPU: 1 CPU missing for 1 env runner"),
        ([], "its 0 nodes have none of it: 4 CPU missing for 4 env runners (no node has any CPU)"),
        ([{"CPU": 4.0}], "of which others have taken too much"),
    ],
)
def test_what_is_missing_is_named(nodes: list[dict[str, float]], words: str) -> None:
    line = missing(bundles(wide()), nodes)
    assert line.startswith("the run needs 4 x env runner with 1 CPU; ")
    assert line.endswith(words)


def test_a_resource_that_no_node_has_is_named() -> None:
    line = missing(bundles(wide(resources={"rollout": 1})), [{"CPU": 8.0}])
    assert line.endswith("4 CPU and 4 rollout missing for 4 env runners (no node has any rollout)")


@pytest.mark.usefixtures("ray_session")
def test_a_cluster_that_is_too_small_is_refused_with_what_is_missing_and_how_to_help() -> None:
    refuse_too_small(
        small(rollout={"num_env_runners": 4, "min_env_runners": 2}, ray={"wait_seconds": 200})
    )
    way_out = (
        r"lower rollout\.num_env_runners \(or set rollout\.min_env_runners\), "
        r"or wait longer with ray\.wait_seconds=900"
    )
    with pytest.raises(
        ValueError,
        match=rf"^the run needs 4 x env runner .* 1 CPU missing for 1 env runner; .*{way_out}",
    ):
        refuse_too_small(wide())


@pytest.mark.usefixtures("ray_session")
def test_what_is_waited_for_is_said_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhp.workers.resources.SAY_SECONDS", 0.1)
    said: list[str] = []
    with pytest.raises(ValueError, match="missing"):
        refuse_too_small(
            small(rollout={"num_env_runners": 64}, ray={"wait_seconds": 1}), say=said.append
        )
    assert len(said) == 1, "not at every look"
    assert said[0].startswith(
        "waiting for room on the Ray cluster since 0 s: the run needs 64 x env runner"
    )
