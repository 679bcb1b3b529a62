"""What brought every environment of a runner to where it is, so that a resumed run can
go there again.

Simulators have no common way to be saved (MuJoCo's derived quantities lag behind its
state, Box2D has none at all), but all of them follow from the generator that an episode
began with and the actions since. So those are kept, and a restore plays the running
episodes again and compares: observation and return must come out bit for bit.

    one by one (`SyncVectorEnv`)       played again
    a vector implementation in Python  its attributes are copied, where they are numbers and
                                       arrays alone
    any other (ALE's, in C++)          cannot be restored: episodes begin anew

An environment that draws from a generator of its own instead of Gymnasium's `np_random`
is found out by comparing.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv
from gymnasium.vector.utils import batch_space, iterate

from rlhp.envs.guard import EnvFailed
from rlhp.types import Array

ROWS_KEPT = 4096
"""Rows behind the longest running episode are dropped so often."""


class CannotRestore(ValueError):
    """The environments cannot be brought to where they were: the reason, in words."""


class EpisodeReplay:
    """Follows the environments of one vector: `begin` at a reset, `record` after each
    step.
    """

    def __init__(self, vector: Any, *, on: bool = True) -> None:
        """`on=False` records nothing: for runners that nobody brings back."""
        self._on, self._why = on, "nobody recorded what they did"
        self._vector = vector.unwrapped
        self._played = isinstance(self._vector, SyncVectorEnv)
        self._rows: list[Array] = []
        self._start: list[Any] = []
        self._first: list[int] = []

    def begin(self, seeds: list[int]) -> None:
        """All environments were just reset with these seeds."""
        self._rows, self._start, self._first = [], list(seeds), [0] * len(seeds)

    def record(self, executed: Array, done: Array) -> None:
        """One row of actions [N, *A] was taken; where `done` [N], the next row is the
        reset of another episode.
        """
        if not self._played or not self._on:
            return
        self._rows.append(executed)
        for k in np.flatnonzero(done):
            try:
                self._start[k] = _generator(self._vector.envs[k]).bit_generator.state
            except CannotRestore as error:
                self._on, self._why = False, str(error)
                self._rows = []
                return
            self._first[k] = len(self._rows) + 1  # after the row of the reset
        drop = min(self._first) - 1
        if drop > ROWS_KEPT:
            del self._rows[:drop]
            self._first = [first - drop for first in self._first]

    def state(self) -> dict[str, Any]:
        """Plain data, for `restore`; CannotRestore where there is no way back."""
        if not self._on:
            raise CannotRestore(self._why)
        if not self._played:
            return {"attributes": _attributes(self._vector)}
        space = self._vector.single_action_space
        none = np.zeros((0, *space.shape), space.dtype)
        actions = [
            np.stack([row[k] for row in self._rows[first:]]) if first < len(self._rows) else none
            for k, first in enumerate(self._first)
        ]
        return {"start": list(self._start), "actions": actions}

    def restore(self, state: dict[str, Any], *, obs: Array, done: Array, returns: Array) -> None:
        """Bring the environments to where they showed `obs` [N, O], episodes that are
        not `done` [N] having earned `returns` [N]. CannotRestore where they come out
        elsewhere.
        """
        if "attributes" in state:
            _set_attributes(self._vector, state["attributes"])
            return
        if not self._played:
            raise CannotRestore(
                "they were stepped one by one when they were saved, and are not now"
            )
        for k, env in enumerate(self._vector.envs):
            try:
                self._replay(
                    k, env, state, obs=obs[k], done=bool(done[k]), earned=float(returns[k])
                )
            except EnvFailed as error:
                raise CannotRestore(f"played again, one of them fails: {error}") from error
        self._vector._autoreset_envs = np.array(done, dtype=np.bool_)
        lengths = [len(actions) for actions in state["actions"]]
        longest = max(lengths)
        space = self._vector.single_action_space
        rows = [np.zeros((len(lengths), *space.shape), space.dtype) for _ in range(longest)]
        for k, actions in enumerate(state["actions"]):
            for row, action in zip(rows[longest - len(actions) :], actions, strict=True):
                row[k] = action
        self._rows, self._start = rows, list(state["start"])
        self._first = [
            longest + 1 if over else longest - length
            for over, length in zip(done, lengths, strict=True)
        ]

    def _replay(
        self, k: int, env: Any, state: dict[str, Any], *, obs: Array, done: bool, earned: float
    ) -> None:
        start, actions = state["start"][k], state["actions"][k]
        if isinstance(start, int):
            seen, _ = env.reset(seed=start)
        else:
            _generator(env).bit_generator.state = start
            if done:
                return  # the next step resets it
            seen, _ = env.reset()
        total = 0.0
        for action in _each(env.action_space, actions):
            seen, reward, *_ = env.step(action)
            total += float(np.float32(reward))
        if not np.array_equal(np.asarray(seen, obs.dtype), obs) or not np.isclose(
            total, earned, rtol=1e-9, atol=1e-9
        ):
            raise CannotRestore(
                f"played again, environment {k} comes out elsewhere: it depends on more than its "
                "seed and the actions"
            )


def _generator(env: Any) -> np.random.Generator:
    """Gymnasium's; CannotRestore where the environment has put another in its place."""
    with suppress(Exception):  # a property of somebody's own
        if isinstance(generator := env.unwrapped.np_random, np.random.Generator):
            return generator
    raise CannotRestore(
        f"{type(env.unwrapped).__name__} draws from a generator of its own, not from np_random"
    )


def _each(space: Any, actions: Array) -> Any:
    """Single actions as a vector environment hands them out."""
    return iterate(batch_space(space, len(actions)), actions) if len(actions) else []


def _attributes(env: Any) -> dict[str, Any]:
    """Numbers and arrays of a vector environment written in Python, and its generator."""
    found: dict[str, Any] = {}
    for name, value in vars(env).items():
        if value is None or isinstance(value, (bool, int, float, str)):
            found[name] = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            found[name] = value.copy()
        elif isinstance(value, np.random.Generator):
            found[name] = {"generator": value.bit_generator.state}
        elif type(value).__module__.startswith("gymnasium.") or name in (
            "metadata",
            "_np_random_seed",
        ):
            continue  # spaces, the spec: as they are in any of its kind
        elif _constant(value):
            continue
        else:
            raise CannotRestore(
                f"{type(env).__name__}.{name} is a {type(value).__name__}, which cannot be copied"
            )
    return found


def _constant(value: Any) -> bool:
    plain = (type(None), bool, int, float, str)
    return isinstance(value, (tuple, list)) and all(isinstance(item, plain) for item in value)


def _set_attributes(env: Any, found: dict[str, Any]) -> None:
    for name, value in found.items():
        if isinstance(value, dict):
            generator = np.random.default_rng()
            generator.bit_generator.state = value["generator"]
            value = generator
        elif isinstance(value, np.ndarray):
            value = value.copy()
        setattr(env, name, value)
