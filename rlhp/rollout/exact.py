"""The state of a local env runner as it stands between two fragments, running episodes included.

RLlib's own state of a runner is weights, statistics and a counter: what it restores begins its episodes anew. Where the
environments can be brought back (`rlhp.rollout.tape`), this is the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlhp.rollout.runner import ColumnarEnvRunner
from rlhp.rollout.tape import CannotRestore

_PER_ENVIRONMENT = ("_obs", "_was_done", "_episode_number", "_episode_start", "_true_return", "_predicted_return")
_PLAIN = ("_incarnation", "_offered", "_dropped")


def runner_state(runner: ColumnarEnvRunner) -> dict[str, Any]:
    """Plain data; CannotRestore where the environments are of a kind that cannot be brought back."""
    if runner._state_kind == "replay":
        raise CannotRestore("games are not brought back")
    state: dict[str, Any] = {name: getattr(runner, name) for name in _PLAIN}
    state["rng"] = runner._rng.bit_generator.state
    state["metrics"] = runner.metrics.get_state()
    state["begun"] = not runner._needs_initial_reset
    if state["begun"]:
        state["tape"] = runner._tape.state()
        state["cutter"] = runner._cutter.state()
        state |= {name: np.array(getattr(runner, name)) for name in _PER_ENVIRONMENT}
    return state


def restore_environments(runner: ColumnarEnvRunner, state: dict[str, Any]) -> None:
    """Bring its environments back; CannotRestore where they come out elsewhere, and then they are reset anew."""
    if not state["begun"]:
        return
    if len(state["_obs"]) != runner.num_envs:
        raise CannotRestore(f"{len(state['_obs'])} environments were saved, there are {runner.num_envs} now")
    try:
        runner._tape.restore(state["tape"], obs=state["_obs"], done=state["_was_done"], returns=state["_true_return"])
    except CannotRestore:
        runner._needs_initial_reset = True
        raise


def restore_runner(runner: ColumnarEnvRunner, state: dict[str, Any]) -> None:
    """Everything else, after `restore_environments` and after RLlib's own state."""
    for name in _PLAIN:
        setattr(runner, name, state[name])
    runner._rng.bit_generator.state = state["rng"]
    runner.metrics.set_state(state["metrics"])
    runner._needs_initial_reset = not state["begun"]
    if state["begun"]:
        runner._cutter.set_state(state["cutter"])
        for name in _PER_ENVIRONMENT:
            setattr(runner, name, np.array(state[name]))
