"""What Ray knows of runs: `rlhp status --address`, and the list of a run's actors.

Every actor of a run is listed with its node, process, state and restarts, and says
itself how it is. Ray's public listing asks the dashboard, which a local Ray does not
start; the actor table of its control store is always there. Ray's version is pinned
(`pyproject.toml`), and no other file reads that table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from rlhp.errors import RlhpError
from rlhp.monitor import actors, status
from rlhp.monitor.actors import ActorFacts, told
from rlhp.monitor.diagnosis import Facts, diagnose
from rlhp.storage.rundir import RunDir
from rlhp.system.ray import NAMESPACE, hush, refuse_silence
from rlhp.system.roles import (
    ENV_RUNNER,
    LEARNER,
    QUERY_ACTOR,
    REWARD_MODEL,
    REWARD_TRAINER,
    QueryActorStatus,
    RewardTrainerStatus,
    RoleStatus,
    without_number,
)

UNNAMED = ("EnvRunner", "Learner")
"""How the classes of RLlib's actors end."""


def list_actors(
    *, run: str | None = None, statuses: Mapping[str, RoleStatus] | None = None
) -> list[ActorFacts]:
    """The actors of one run of this driver, or of all runs of the cluster; those that
    are dead for good are left out.

    Needs a Ray that this process has joined. RLlib's actors have no names of their own:
    they belong to the run whose driver (Ray's job) started them. `statuses` has
    what roles said of themselves, by name.
    """
    everything: Mapping[str, Mapping[str, Any]] = ray._private.state.actors()
    present = [facts for facts in everything.values() if facts["State"] != "DEAD"]
    runs = {
        facts["JobID"]: facts["Name"].partition(":")[0] for facts in present if ":" in facts["Name"]
    }
    if run is not None:
        runs[ray.get_runtime_context().get_job_id()] = run
    listed = []
    for facts in present:
        named = ":" in facts["Name"]
        whose = facts["Name"].partition(":")[0] if named else runs.get(facts["JobID"])
        if (
            whose is not None
            and run in (None, whose)
            and (named or facts["ActorClassName"].endswith(UNNAMED))
        ):
            actor = _facts(facts, whose)
            listed.append(told(actor, (statuses or {}).get(actor.role)))
    return sorted(listed, key=lambda actor: (actor.run, actor.role, actor.pid))


def _facts(facts: Mapping[str, Any], run: str) -> ActorFacts:
    return ActorFacts(
        run=run,
        role=_role(facts["Name"], facts["ActorClassName"]),
        name=facts["Name"],
        state=facts["State"].lower(),
        node=facts["Address"]["IPAddress"],
        pid=int(facts["Pid"]),
        restarts=int(facts["NumRestarts"]),
    )


def _role(name: str, class_name: str) -> str:
    if named := name.partition(":")[2].partition("@")[0]:
        return named
    return ENV_RUNNER if class_name.endswith("EnvRunner") else LEARNER


ANSWER_SECONDS = 5.0
"""A role that is in the middle of something answers late; it is listed all the same."""


def report(address: str, *, run: str | None) -> str:
    """One run of that cluster, or all of them; ValueError where there is none,
    ConnectionError for no cluster.
    """
    hush()
    refuse_silence(address)
    joins = not ray.is_initialized()
    if joins:
        ray.init(
            address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR
        )
    try:
        listed = [actor for actor in list_actors() if run in (None, actor.run)]
        if not listed:
            what = "no run is" if run is None else f"run {run} is not"
            raise RlhpError(
                f"{what} going on in the Ray cluster at {address}; rlhp status RUN reads a run "
                "directory"
            )
        names = sorted({actor.run for actor in listed})
        return "\n\n\n".join(
            _of_run(name, [actor for actor in listed if actor.run == name]) for name in names
        )
    finally:
        if joins:
            ray.shutdown()


def _of_run(name: str, listed: Sequence[ActorFacts]) -> str:
    statuses = _ask(listed)
    listed = [told(actor, statuses.get(actor.role)) for actor in listed]
    paths = (answer.run_path for answer in statuses.values() if answer.run_path is not None)
    path = next(paths, None)
    if path is not None and Path(path).is_dir():  # on a disk that this machine shares with the run
        return status.report(replace(status.gather(RunDir.open(path)), actors=listed))
    return "\n".join([*_sentences(name, listed, statuses, path), "", *actors.table(listed)])


def _ask(listed: Sequence[ActorFacts]) -> dict[str, RoleStatus]:
    """What the named ones say, as far as they say it in time and in words of this
    version.
    """
    pending: dict[Any, str] = {}
    for actor in listed:
        if actor.name and actor.here:
            with suppress(ValueError, RayError):
                method = ray.get_actor(actor.name, namespace=NAMESPACE).status
                if without_number(actor.role) == REWARD_MODEL:
                    method = method.options(concurrency_group="control")
                pending[method.remote()] = actor.role
    done, _ = (
        ray.wait(list(pending), num_returns=len(pending), timeout=ANSWER_SECONDS)
        if pending
        else ([], [])
    )
    statuses = {}
    for reference in done:
        with suppress(RayError):
            answer = ray.get(reference)
            if isinstance(answer, RoleStatus):
                statuses[pending[reference]] = answer
    return statuses


def _sentences(
    name: str,
    listed: Sequence[ActorFacts],
    statuses: Mapping[str, RoleStatus],
    path: str | None,
) -> Iterator[str]:
    query_actor, trainer = statuses.get(QUERY_ACTOR), statuses.get(REWARD_TRAINER)
    env_steps = budget = newest = answered = 0
    if isinstance(query_actor, QueryActorStatus):
        env_steps, budget = query_actor.env_steps, query_actor.budget
    if isinstance(trainer, RewardTrainerStatus):
        newest, answered = trainer.version, trainer.answered
    where = "" if path is None else f" in {path}, which this machine cannot see"
    yield (
        f"{name} goes on{where}: {env_steps:,} env steps, reward version {newest}, {answered} of "
        f"{budget} labels."
    )
    facts = Facts(name=name, actors=listed, learning=True)
    yield from (finding.sentence() for finding in diagnose(facts))
