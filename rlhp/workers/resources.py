"""Whether the cluster has room for a run: where it has not, the start is refused with
what is missing, and does not hang.

A placement group of all that the run reserves is asked for and given back at once. That
is Ray's own answer to whether everything fits at the same time, it counts what other
runs have taken, and it makes an autoscaler start machines.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import ceil

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from rlhp.config.schema import RunConfig
from rlhp.errors import RlhpError
from rlhp.system.roles import ENV_RUNNER, LEARNER, REWARD_MODEL, REWARD_TRAINER, spoken

log = logging.getLogger(__name__)

Bundle = dict[str, float]
SAY_SECONDS = 10.0
SAY_AGAIN_SECONDS = 30.0


def bundles(config: RunConfig) -> list[tuple[str, Bundle]]:
    """What a run reserves: whom for, and what each of them needs on one node; the
    driver itself reserves nothing.
    """
    rollout, learner = config.rollout, config.learner
    runners = (
        rollout.num_env_runners if rollout.min_env_runners is None else rollout.min_env_runners
    )
    runner = _plain({"CPU": rollout.num_cpus_per_env_runner, **rollout.resources})
    gpus = learner.num_gpus_per_learner
    # as RLlib counts
    one_learner = _plain({"CPU": 0 if gpus else 1, "GPU": gpus, **learner.resources})
    reserved = [(ENV_RUNNER, runner)] * runners + [(LEARNER, one_learner)] * learner.num_learners
    if config.preferences and config.reward_gpus:
        gpu = {"GPU": config.reward_gpus}
        reserved += [(REWARD_TRAINER, gpu)] + [(REWARD_MODEL, gpu)] * (config.reward.replicas or 1)
    return [(who, bundle) for who, bundle in reserved if bundle]


def local_cpus(config: RunConfig) -> int:
    """CPUs of a local Ray that fits the run."""
    reserved = sum(bundle.get("CPU", 0) for _, bundle in bundles(config))
    rollout = config.rollout
    later = (rollout.num_env_runners - (rollout.min_env_runners or rollout.num_env_runners)) * (
        rollout.num_cpus_per_env_runner
    )
    return max(2, ceil(reserved + later) + 1)


def refuse_too_small(config: RunConfig, *, say: Callable[[str], None] = log.warning) -> None:
    """Wait `ray.wait_seconds` for room, saying what is missing; ValueError with the
    same line where none comes.

    Inside a placement group, as in a trial of Ray Tune, room was made already.
    """
    wanted = bundles(config)
    if not wanted or ray.util.get_current_placement_group() is not None:
        return
    wait = config.ray.wait_seconds
    group = placement_group([bundle for _, bundle in wanted], strategy="PACK")
    try:
        if not _ready(group, wait, wanted, say):
            raise RlhpError(
                f"{missing(wanted)}; add nodes, lower rollout.num_env_runners (or set "
                "rollout.min_env_runners), or wait longer with "
                f"ray.wait_seconds={max(900, round(2 * wait))} where an autoscaler adds them"
            )
    finally:
        remove_placement_group(group)


def _ready(
    group: PlacementGroup,
    wait: float,
    wanted: Sequence[tuple[str, Bundle]],
    say: Callable[[str], None],
) -> bool:
    started = now = time.monotonic()
    deadline, say_at = started + wait, started + SAY_SECONDS
    while not group.wait(max(0.1, min(deadline, say_at) - now)):
        now = time.monotonic()
        if now >= deadline:
            return False
        if now >= say_at:
            say(
                f"waiting for room on the Ray cluster since {now - started:.0f} s: "
                f"{missing(wanted)}"
            )
            say_at = now + SAY_AGAIN_SECONDS
    return True


def missing(
    wanted: Sequence[tuple[str, Bundle]], nodes: Sequence[Mapping[str, float]] | None = None
) -> str:
    """One line: what the run needs, what the cluster has, and what of it is not there,
    or taken by others.
    """
    if nodes is None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    counts = Counter(who for who, _ in wanted)
    each = dict(wanted)
    needs = ", ".join(
        f"{count} x {spoken(who)} with {_show(each[who])}" for who, count in counts.items()
    )
    homeless = _homeless(wanted, nodes)
    there: Counter[str] = Counter()
    for node in nodes:
        there.update({name: value for name, value in node.items() if name in _names(wanted)})
    has = (
        f"its {len(nodes)} node{'s' * (len(nodes) != 1)} {'have' if len(nodes) != 1 else 'has'} "
        f"{_show(there)}"
    )
    if not homeless:
        return f"the run needs {needs}; {has}, of which others have taken too much"
    lacks: Counter[str] = Counter()
    for _, bundle in homeless:
        lacks.update(bundle)
    absent = [name for name in lacks if not there.get(name)]
    why = f" (no node has any {', '.join(absent)})" if absent else ""
    left = Counter(who for who, _ in homeless)
    for_whom = ", ".join(
        f"{count} {spoken(who)}{'s' * (count != 1)}" for who, count in left.items()
    )
    return f"the run needs {needs}; {has}: {_show(lacks)} missing for {for_whom}{why}"


def _homeless(
    wanted: Sequence[tuple[str, Bundle]], nodes: Sequence[Mapping[str, float]]
) -> list[tuple[str, Bundle]]:
    """Who finds no place on empty nodes, the largest placed first."""
    free = [dict(node) for node in nodes]
    left = []
    for who, bundle in sorted(wanted, key=lambda item: -sum(item[1].values())):
        for node in free:
            if all(node.get(name, 0.0) >= amount - 1e-9 for name, amount in bundle.items()):
                for name, amount in bundle.items():
                    node[name] -= amount
                break
        else:
            left.append((who, bundle))
    return left


def _names(wanted: Sequence[tuple[str, Bundle]]) -> set[str]:
    return {name for _, bundle in wanted for name in bundle}


def _plain(bundle: Mapping[str, float]) -> Bundle:
    return {name: float(amount) for name, amount in bundle.items() if amount}


def _show(bundle: Mapping[str, float]) -> str:
    return (
        " and ".join(f"{amount:g} {name}" for name, amount in bundle.items() if amount)
        or "none of it"
    )
