"""The clip renderer as a Ray actor, and what it survives."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import ray
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from rlhp.labeling.clips.video import first_frame
from rlhp.queue.queue import QueryQueue
from rlhp.queue.records import body_of
from rlhp.run.preflight import check
from rlhp.types import Query, encode
from rlhp.workers.roles import ClipRendererProcess
from tests.labeling.clips.drawn import DOT, SIDE, Dot, dots
from tests.labeling.parts import until
from tests.run.parts import run_in
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")


def reserve(queue: QueryQueue, name: str) -> None:
    query = Query(
        id=name, candidates=(dots(1, 2, name=f"{name}-a"), dots(30, 31, name=f"{name}-b"))
    )
    payloads = {each.id: encode(each) for each in (query.first, query.second)}
    put = queue.put(
        query=name,
        candidates=(query.first.id, query.second.id),
        body=body_of(query),
        payloads=payloads,
        ready=False,
    )
    assert put == "ok"


def pid_of(actor: Any) -> int:
    while True:  # a call to an actor that is being restarted fails
        try:
            return int(ray.get(actor.status.remote()).pid)
        except ray.exceptions.RayActorError:
            continue


@pytest.mark.faults
def test_a_clip_renderer_that_is_killed_is_back_and_draws_what_was_reserved(
    redis_url: str, tmp_path: Path
) -> None:
    changes = {
        "env": {"id": DOT.id, "max_episode_steps": 20},
        "clips": {"width": SIDE, "height": SIDE},
    }
    rundir, queue = run_in(tmp_path, redis_url, labels={"source": "human"}, **changes)
    rundir.write_redis_url(redis_url)
    actor = ray.remote(num_cpus=0, max_restarts=-1)(ClipRendererProcess).remote(str(rundir.path))
    reserve(queue, "q0")
    until(lambda: queue.stats().pending == 1, seconds=140)
    first = pid_of(actor)
    os.kill(first, signal.SIGKILL)
    reserve(queue, "q1")
    until(lambda: queue.stats().pending == 2, seconds=140)
    assert pid_of(actor) != first
    data = queue.clips.fetch(query="q1", side="second")
    assert data is not None
    first_frame(data)
    status = ray.get(actor.status.remote())
    assert (status.metrics["clips/ready"], status.fatal, status.waiting_for) == (1, None, None)
    assert os.getpriority(os.PRIO_PROCESS, status.pid) >= 10, "it gives way to env runners"
    ray.kill(actor)
    queue.disconnect()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            "env.id='tests.environments:Drift': Drift cannot be drawn: .* set clips.enabled=false",
        ),
        (
            {"env": {"id": DOT.id, "max_episode_steps": 20}, "clips": {"store": "ftp://clips"}},
            "clips.store is file:///directory or s3://bucket/prefix, got 'ftp://clips'",
        ),
        (
            {
                "env": {"id": DOT.id, "max_episode_steps": 20},
                "clips": {"store": "s3://key:word@bucket"},
            },
            "the address of a store holds no keys",
        ),
    ],
    ids=["undrawable", "no store", "credentials"],
)
def test_what_people_could_not_be_shown_is_refused_before_the_start(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        check(small(labels={"source": "human"}, **changes))


def test_a_vector_implementation_that_tells_no_states_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = "tests.workers.test_clip_process"
    spec = EnvSpec(
        "DotAtOnce-v0",
        entry_point=DOT.id,
        vector_entry_point=f"{here}:dots_at_once",
        max_episode_steps=20,
    )
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    people = small(labels={"source": "human"}, env={"id": spec.id, "max_episode_steps": 20})
    native = people.model_copy(
        update={"rollout": people.rollout.model_copy(update={"vectorize": "native"})}
    )
    with pytest.raises(
        ValueError, match=r"tells no states to draw clips from; set rollout\.vectorize=auto"
    ):
        check(native)
    check(people)  # `auto` steps one by one where people are to see clips
    check(small(labels={"source": "none"}, env={"id": spec.id, "max_episode_steps": 20}))


def dots_at_once(num_envs: int, **_: Any) -> Any:
    """A vector implementation of the dot's own."""
    return SyncVectorEnv(
        [lambda: TimeLimit(Dot(), 20)] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP
    )
