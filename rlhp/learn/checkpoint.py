"""Checkpoints of one run: `checkpoints/step-000050000/`, whole or not there, the newest few kept.

    algorithm/   RLlib's own: policy, optimisers, KL coefficient, observation statistics, metrics
    rlhp.json    our counters
    policy.pt    weights and observation statistics alone, for `rlhp eval` (read without pickle)

The reward model, its optimiser and version, the preferences and the open queries are not in here: they are
saved where they are made (`reward/`, `preferences/`, Redis), at every change, so they are never older. Nor are
random generators: a resumed run draws anew (see `rlhp.learn.settings`).

RLlib's part is a pickle: resume only from run directories you trust.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule

from rlhp.config import RunConfig
from rlhp.learn.ppo import PreferencePPO
from rlhp.learn.settings import algorithm_config
from rlhp.rollout.normalize import RunningMoments
from rlhp.spaces import Spaces

SCHEMA = 1


class Checkpoints:
    """The checkpoints in one directory."""

    def __init__(self, directory: Path, *, keep: int) -> None:
        self._directory = directory
        self._keep = keep

    def save(self, algorithm: PreferencePPO, *, env_steps: int, counters: dict[str, Any]) -> Path:
        """Write a new checkpoint and drop the oldest beyond `keep`."""
        self._directory.mkdir(parents=True, exist_ok=True)
        final = self._directory / f"step-{env_steps:09d}"
        temporary = self._directory / f".step-{env_steps:09d}.tmp"
        for left_over in self._directory.glob(".step-*.tmp"):
            shutil.rmtree(left_over, ignore_errors=True)
        temporary.mkdir()
        algorithm.save_to_path(str(temporary / "algorithm"))
        save_policy(temporary / "policy.pt", algorithm)
        text = json.dumps({"schema": SCHEMA, "env_steps": env_steps, **counters}, indent=2)
        (temporary / "rlhp.json").write_text(text + "\n", encoding="utf-8")
        _sync_tree(temporary)
        shutil.rmtree(final, ignore_errors=True)  # of the same step, as when a run ends where it has just saved
        os.replace(temporary, final)
        for old in self.all()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def all(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(path for path in self._directory.glob("step-*") if (path / "rlhp.json").is_file())

    def newest(self) -> Path | None:
        """The newest whole one, or None."""
        found = self.all()
        return found[-1] if found else None

    @staticmethod
    def counters(path: Path) -> dict[str, Any]:
        """The content of `rlhp.json`; ValueError where it is of another schema."""
        data: dict[str, Any] = json.loads((path / "rlhp.json").read_text(encoding="utf-8"))
        if data.get("schema") != SCHEMA:
            raise ValueError(f"{path}: checkpoint schema {data.get('schema')}, this rlhp reads {SCHEMA}")
        return data


def save_policy(path: Path, algorithm: PreferencePPO) -> None:
    """Policy weights and observation statistics: all that playing needs."""
    runner = algorithm.env_runner
    state = {name: torch.as_tensor(np.asarray(value)) for name, value in runner.module.get_state().items()}
    moments = runner._moments.get_state()["known"].get("obs")
    statistics = None
    if moments is not None:
        statistics = {name: torch.as_tensor(np.asarray(value)) for name, value in moments.items()}
    torch.save({"module": state, "moments": statistics}, path)


def load_policy(
    path: Path, config: RunConfig, spaces: Spaces, *, action_space: gym.Space[Any]
) -> tuple[RLModule, RunningMoments | None]:
    """The module and its observation statistics (None where the run did not normalise)."""
    data = torch.load(path, weights_only=True)
    settings = algorithm_config(config, spaces, action_space=action_space)
    space = spaces.obs.flat_space()
    spec = settings.get_rl_module_spec(spaces={DEFAULT_MODULE_ID: (space, action_space)}, inference_only=True)
    spec.observation_space, spec.action_space = space, action_space
    module = spec.build()
    module.set_state({name: value.numpy() for name, value in data["module"].items()})
    if not settings.rlhp.normalize_obs:
        return module, None
    moments = RunningMoments()
    if data["moments"] is not None:
        known = {name: value.numpy() for name, value in data["moments"].items()}
        moments.set_state({"known": {"obs": {**known, "count": float(known["count"])}}})
    return module, moments


def _sync_tree(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
