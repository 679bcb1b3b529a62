"""Who is there: every Ray actor of a run with its node, process, state and restarts.

Ray's public listing asks the dashboard, which a local Ray does not start; the actor table of its control store is there
always. Ray's version is pinned (`pyproject.toml`), and this is the one place that reads the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from rlhp.actors import ActorFacts

ROLES = {"query_actor": "query actor", "reward_trainer": "reward trainer", "clip_renderer": "clip renderer"}
UNNAMED = ("EnvRunner", "Learner")
"""How the classes of RLlib's actors end."""


def census(*, run: str | None = None, notes: Mapping[str, str] | None = None) -> list[ActorFacts]:
    """The actors of one run of this driver, or of all runs of the cluster; those that are dead for good are left out.

    Needs a Ray that this process has joined. RLlib's actors have no names of their own: they belong to the run whose
    driver (Ray's job) started them. `notes` has what is known of a role besides.
    """
    everything: Mapping[str, Mapping[str, Any]] = ray._private.state.actors()
    present = [facts for facts in everything.values() if facts["State"] != "DEAD"]
    runs = {facts["JobID"]: facts["Name"].partition(":")[0] for facts in present if ":" in facts["Name"]}
    if run is not None:
        runs[ray.get_runtime_context().get_job_id()] = run
    found = []
    for facts in present:
        named = ":" in facts["Name"]
        whose = facts["Name"].partition(":")[0] if named else runs.get(facts["JobID"])
        if whose is not None and run in (None, whose) and (named or facts["ActorClassName"].endswith(UNNAMED)):
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
