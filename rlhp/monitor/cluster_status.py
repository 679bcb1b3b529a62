"""`rlhp status --address`: what a Ray cluster knows of the runs on it, asked of their
actors.

Who is there: every Ray actor of a run with its node, process, state and restarts.

Ray's public listing asks the dashboard, which a local Ray does not start; the actor
table of its control store is there always. Ray's version is pinned (`pyproject.toml`),
and this is the one place that reads the table.
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
    spoken,
    without_number,
)

UNNAMED = ("EnvRunner", "Learner")
"""How the classes of RLlib's actors end."""


def list_actors(
    *, run: str | None = None, said: Mapping[str, RoleStatus] | None = None
) -> list[ActorFacts]:
    """The actors of one run of this driver, or of all runs of the cluster; those that
    are dead for good are left out.

    Needs a Ray that this process has joined. RLlib's actors have no names of their own:
    they belong to the run whose driver (Ray's job) started them. `said` has what roles
    said of themselves, by name.
    """
    everything: Mapping[str, Mapping[str, Any]] = ray._private.state.actors()
    present = [facts for facts in everything.values() if facts["State"] != "DEAD"]
    runs = {
        facts["JobID"]: facts["Name"].partition(":")[0] for facts in present if ":" in facts["Name"]
    }
    if run is not None:
        runs[ray.get_runtime_context().get_job_id()] = run
    found = []
    for facts in present:
        named = ":" in facts["Name"]
        whose = facts["Name"].partition(":")[0] if named else runs.get(facts["JobID"])
        if (
            whose is not None
            and run in (None, whose)
            and (named or facts["ActorClassName"].endswith(UNNAMED))
        ):
            actor = _facts(facts, whose)
            found.append(told(actor, (said or {}).get(actor.role)))
    return sorted(found, key=lambda each: (each.run, each.role, each.pid))


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
    mine = not ray.is_initialized()
    if mine:
        ray.init(
            address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR
        )
    try:
        found = [each for each in list_actors() if run in (None, each.run)]
        if not found:
            what = "no run is" if run is None else f"run {run} is not"
            raise RlhpError(
                f"{what} going on in the Ray cluster at {address}; rlhp status RUN reads a run "
                "directory"
            )
        return "\n\n\n".join(_of_run(name, found) for name in sorted({each.run for each in found}))
    finally:
        if mine:
            ray.shutdown()


def _of_run(name: str, found: Sequence[ActorFacts]) -> str:
    mine = [each for each in found if each.run == name]
    said = _ask(mine)
    mine = [told(each, said.get(each.role)) for each in mine]
    paths = (answer.run_path for answer in said.values() if answer.run_path is not None)
    path = next(paths, None)
    if path is not None and Path(path).is_dir():  # on a disk that this machine shares with the run
        return status.report(replace(status.gather(RunDir.open(path)), actors=mine))
    return "\n".join([*_sentences(name, mine, said, path), "", *actors.table(mine)])


def _ask(mine: Sequence[ActorFacts]) -> dict[str, RoleStatus]:
    """What the named ones say, as far as they say it in time and in words of this
    version.
    """
    pending: dict[Any, str] = {}
    for each in mine:
        if each.name and each.here:
            with suppress(ValueError, RayError):
                method = ray.get_actor(each.name, namespace=NAMESPACE).status
                if without_number(each.role) == REWARD_MODEL:
                    method = method.options(concurrency_group="control")
                pending[method.remote()] = each.role
    done, _ = (
        ray.wait(list(pending), num_returns=len(pending), timeout=ANSWER_SECONDS)
        if pending
        else ([], [])
    )
    said = {}
    for reference in done:
        with suppress(RayError):
            answer = ray.get(reference)
            if isinstance(answer, RoleStatus):
                said[pending[reference]] = answer
    return said


def _sentences(
    name: str, mine: Sequence[ActorFacts], said: Mapping[str, RoleStatus], path: str | None
) -> Iterator[str]:
    asking, trainer = said.get(QUERY_ACTOR), said.get(REWARD_TRAINER)
    env_steps = budget = newest = answered = 0
    if isinstance(asking, QueryActorStatus):
        env_steps, budget = asking.env_steps, asking.budget
    if isinstance(trainer, RewardTrainerStatus):
        newest, answered = trainer.version, trainer.answered
    where = "" if path is None else f" in {path}, which this machine cannot see"
    yield (
        f"{name} goes on{where}: {env_steps:,} env steps, reward version {newest}, {answered} of "
        f"{budget} labels."
    )
    yield from actors.troubles(mine)
    for each in mine:
        if each.version is not None and each.version < newest:
            yield (
                f"The {spoken(each.role)} serves version {each.version}, the newest is {newest}."
            )
    for role, answer in sorted(said.items()):
        if answer.waiting_for is not None:
            yield f"The {spoken(role)} waits: {answer.waiting_for}."
        if answer.fatal is not None:
            yield f"The {spoken(role)} failed: {answer.fatal}."
