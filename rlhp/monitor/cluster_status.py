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
from rlhp.monitor.actors import ActorFacts, note
from rlhp.storage.rundir import RunDir
from rlhp.system.ray import NAMESPACE, hush, refuse_silence

ROLES = {
    "query_actor": "query actor",
    "reward_trainer": "reward trainer",
    "clip_renderer": "clip renderer",
}
UNNAMED = ("EnvRunner", "Learner")
"""How the classes of RLlib's actors end."""


def list_actors(
    *, run: str | None = None, notes: Mapping[str, str] | None = None
) -> list[ActorFacts]:
    """The actors of one run of this driver, or of all runs of the cluster; those that
    are dead for good are left out.

    Needs a Ray that this process has joined. RLlib's actors have no names of their own:
    they belong to the run whose driver (Ray's job) started them. `notes` has what is
    known of a role besides.
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
            found.append(_facts(facts, whose, notes or {}))
    return sorted(found, key=lambda each: (each.run, each.role, each.pid))


def _facts(facts: Mapping[str, Any], run: str, notes: Mapping[str, str]) -> ActorFacts:
    role = _role(facts["Name"], facts["ActorClassName"])
    return ActorFacts(
        run=run,
        role=role,
        name=facts["Name"],
        state=facts["State"].lower(),
        node=facts["Address"]["IPAddress"],
        pid=int(facts["Pid"]),
        restarts=int(facts["NumRestarts"]),
        note=notes.get(role, ""),
    )


def _role(name: str, class_name: str) -> str:
    rest = name.partition(":")[2]
    if rest.startswith("reward_model:"):
        return f"reward model {rest.partition(':')[2].partition('@')[0]}"
    if rest:
        return ROLES.get(rest, rest.replace("_", " "))
    return "env runner" if class_name.endswith("EnvRunner") else "learner"


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
    mine = [replace(each, note=note(said.get(each.role, {}))) for each in mine]
    path = next((facts["path"] for facts in said.values() if "path" in facts), None)
    if path is not None and Path(path).is_dir():  # on a disk that this machine shares with the run
        return status.report(replace(status.gather(RunDir.open(path)), actors=mine))
    return "\n".join([*_sentences(name, mine, said, path), "", *actors.table(mine)])


def _ask(mine: Sequence[ActorFacts]) -> dict[str, dict[str, Any]]:
    """What the named ones say, as far as they say it in time."""
    pending: dict[Any, str] = {}
    for each in mine:
        if each.name and each.here:
            with suppress(ValueError, RayError):
                method = ray.get_actor(each.name, namespace=NAMESPACE).status
                if each.role.startswith("reward model"):
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
            said[pending[reference]] = ray.get(reference)
    return said


def _sentences(
    name: str, mine: Sequence[ActorFacts], said: Mapping[str, Mapping[str, Any]], path: str | None
) -> Iterator[str]:
    numbers = {key: value for facts in said.values() for key, value in facts.items()}
    where = "" if path is None else f" in {path}, which this machine cannot see"
    yield (
        f"{name} goes on{where}: {numbers.get('env_steps', 0):,} env steps, reward version "
        f"{numbers.get('reward/version', 0)}, {numbers.get('labels/answered', 0)} of "
        f"{numbers.get('labels/budget', 0)} labels."
    )
    yield from actors.troubles(mine)
    versions = {role: facts["version"] for role, facts in said.items() if "version" in facts}
    newest = numbers.get("reward/version", 0)
    for role, version in sorted(versions.items()):
        if version < newest:
            yield f"The {role} serves version {version}, the newest is {newest}."
    for role, facts in sorted(said.items()):
        if facts.get("waiting_for"):
            yield f"The {role} waits: {facts['waiting_for']}."
        if facts.get("fatal"):
            yield f"The {role} failed: {facts['fatal']}."
