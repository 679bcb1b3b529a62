"""Which learners there are, by the name that `learner.algorithm` gives them: the one
file outside of a learner's own folder that knows any of them.
"""

from __future__ import annotations

from rlhp.config.schema import RunConfig
from rlhp.learn.interface import Algorithm
from rlhp.learn.ppo.entry import PPO

ALGORITHMS: dict[str, Algorithm] = {"ppo": PPO()}


def algorithm_of(config: RunConfig) -> Algorithm:
    """The algorithm of this run."""
    return ALGORITHMS[config.learner.algorithm]
