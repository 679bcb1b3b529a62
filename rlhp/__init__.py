"""Reinforcement learning from human preferences, on one machine or a cluster.

    import rlhp

    run = rlhp.train("configs/pendulum.yaml", sets=["labels.budget=100"])
    print(run.status())
    action = run.policy()(obs)

Names are imported when they are first used, so that `import rlhp` loads neither torch
nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhp.api import Policy, Run, compare, evaluate, load_config, train
    from rlhp.config.schema import RunConfig
    from rlhp.errors import RlhpError
    from rlhp.preferences.dataset import PreferenceDataset
    from rlhp.types import Answer, Preference, Query, Segment, Teacher

__all__ = [
    "Answer",
    "Policy",
    "Preference",
    "PreferenceDataset",
    "Query",
    "RlhpError",
    "Run",
    "RunConfig",
    "Segment",
    "Teacher",
    "compare",
    "evaluate",
    "load_config",
    "train",
]

_PLACES = {
    "rlhp.api": ("Policy", "Run", "compare", "evaluate", "load_config", "train"),
    "rlhp.config.schema": ("RunConfig",),
    "rlhp.errors": ("RlhpError",),
    "rlhp.preferences.dataset": ("PreferenceDataset",),
    "rlhp.types": ("Answer", "Preference", "Query", "Segment", "Teacher"),
}


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'rlhp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
