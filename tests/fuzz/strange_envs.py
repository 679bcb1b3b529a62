"""An environment that does what a plan says, named in configs as
`tests.fuzz.strange_envs:Strange`.

A plan is plain data, so that the same environment is made again in any process: its
spaces, how its episodes end, and what goes wrong where: what is raised in which call of
which method, and what is returned in place of what.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

Plan = dict[str, Any]


class Unprintable(Exception):
    """Has no words."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Unpicklable(Exception):
    """Cannot travel between processes."""

    def __init__(self, number: int, *, handle: Any) -> None:
        super().__init__(f"handle {number}")
        self.handle = handle


class Panic(BaseException):
    """As extension modules in other languages raise it."""


RAISED: dict[str, Callable[[], BaseException]] = {
    "runtime": lambda: RuntimeError("the motor is unplugged"),
    "lines": lambda: ValueError(
        "first line\nsecond line\n\nTraceback (most recent call last): not ours"
    ),
    "silent": RuntimeError,
    "key": lambda: KeyError("env_runners"),
    "os": lambda: OSError(28, "No space left on device", "/simulator/log"),
    "connection": lambda: ConnectionResetError("the simulator hung up"),
    "timeout": lambda: TimeoutError("the simulator is late"),
    "assertion": AssertionError,
    "stop": StopIteration,
    "memory": MemoryError,
    "recursion": lambda: RecursionError("maximum recursion depth exceeded"),
    "exit": lambda: SystemExit(0),
    "panic": lambda: Panic("called Option::unwrap() on a None value"),
    "unprintable": Unprintable,
    "unpicklable": lambda: Unpicklable(3, handle=lambda: None),
    "group": lambda: ExceptionGroup("two at once", [ValueError("one"), OSError("two")]),
    "warning": lambda: UserWarning("as an error"),
}

ODD: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "nan": lambda: float("nan"),
    "inf": lambda: -np.inf,
    "huge": lambda: 1e300,
    "text": lambda: "five",
    "object": object,
    "empty": lambda: np.zeros(0),
    "one": lambda: np.ones(1, np.float32),
    "two": lambda: np.array([True, False]),
    "list": lambda: [1, 2, 3],
    "ragged": lambda: [[1.0], [2.0, 3.0]],
    "dict": lambda: {"a": 1},
    "tuple": lambda: (1, 2),
    "complex": lambda: 1 + 2j,
    "true": lambda: True,
    "minus": lambda: -7,
    "int": lambda: np.int8(1),
    "matrix": lambda: np.full((3, 3), np.nan),
}

INFOS: dict[str, Callable[[int], Any]] = {
    "nothing": lambda step: {},
    "score": lambda step: {"score": step, "game_score": "high", "_score": None},
    "ragged": lambda step: {"near": np.arange(step % 5), "far": [None] * (step % 3)},
    "changing": lambda step: {"x": step if step % 2 else "even", 3: object()},
    "ours": lambda step: {
        "hidden_reset": "no",
        "simulator_faults": {},
        "final_obs": 1,
        "episode": {"r": "much"},
    },
    "deep": lambda step: {"a": {"b": {"c": np.zeros((step % 3, 2))}}},
}


def space_of(plan: Any) -> Any:
    """The space of a description: its kind, then what it is made of."""
    kind, *more = plan
    if kind == "box":
        shape, dtype, low, high = more
        return spaces.Box(low, high, tuple(shape), np.dtype(dtype).type)
    if kind == "discrete":
        return spaces.Discrete(more[0], start=more[1])
    if kind == "multidiscrete":
        return spaces.MultiDiscrete(np.array(more[0]))
    if kind == "multibinary":
        return spaces.MultiBinary(more[0])
    if kind == "dict":
        return spaces.Dict({key: space_of(part) for key, part in more[0]})
    if kind == "tuple":
        return spaces.Tuple([space_of(part) for part in more[0]])
    if kind == "text":
        return spaces.Text(more[0])
    if kind == "sequence":
        return spaces.Sequence(space_of(more[0]))
    if kind == "graph":
        return spaces.Graph(spaces.Box(0, 1, (2,)), None)
    return {"none": None, "word": "Box(2,)", "class": spaces.Box}[kind]


class Strange(gym.Env[Any, Any]):
    """Does what its plan says."""

    def __init__(self, render_mode: str | None = None, **plan: Any) -> None:
        self._plan: Plan = plan
        self._calls: dict[str, int] = {}
        self._goes_wrong("make")
        self.render_mode = render_mode
        if "metadata" in plan:
            self.metadata = plan["metadata"]
        if plan["obs"][0] != "missing":
            self.observation_space = space_of(plan["obs"])
        if plan["action"][0] != "missing":
            self.action_space = space_of(plan["action"])
        self._left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As Gymnasium has it, but for what goes wrong."""
        self._goes_wrong("reset")
        if self._plan.get("generator") == "old":
            self.np_random: Any = np.random.RandomState(seed)
        elif self._plan.get("generator") != "none":
            super().reset(seed=seed)
        if seed is not None and isinstance(self.observation_space, spaces.Space):
            self.observation_space.seed(seed)
        self._left = self._plan.get("length") or 10**9
        return self._odd("reset", [self._show(), INFOS[self._plan["info"]](0)], ("obs", "info"))

    def step(self, action: Any) -> Any:
        """As Gymnasium has it, but for what goes wrong."""
        self._goes_wrong("step")
        self._left -= 1
        over = self._left <= 0
        paid = float(np.sin(self._left)) * self._plan.get("pays", 1.0)
        terminated, truncated = (
            over and self._plan["ends"] != "truncated",
            over and self._plan["ends"] != "terminated",
        )
        shown = [
            self._show(),
            paid,
            terminated,
            truncated,
            INFOS[self._plan["info"]](self._left % 7),
        ]
        return self._odd("step", shown, ("obs", "reward", "terminated", "truncated", "info"))

    def render(self) -> Any:
        """A picture, but for what goes wrong."""
        self._goes_wrong("render")
        (picture,) = self._odd("render", [np.zeros((48, 64, 3), np.uint8)], ("frame",))
        return picture

    def close(self) -> None:
        """Nothing, but for what goes wrong."""
        self._goes_wrong("close")

    def _show(self) -> Any:
        if not isinstance(self.observation_space, spaces.Space):
            return np.zeros(2, np.float32)
        return self.observation_space.sample()

    def _goes_wrong(self, call: str) -> None:
        count = self._calls[call] = self._calls.get(call, 0) + 1
        fault = self._plan.get("fault")
        if fault is not None and fault["call"] == call and count >= fault["at"]:
            raise RAISED[fault["raises"]]()

    def _odd(self, call: str, values: list[Any], names: tuple[str, ...]) -> Any:
        odd = self._plan.get("odd")
        if odd is None or odd["call"] != call or self._calls[call] < odd["at"]:
            return tuple(values)
        if odd["what"] == "fewer":
            return tuple(values[:-1])
        if odd["what"] == "bare":
            return values[0]
        if odd["what"] in names:
            values[names.index(odd["what"])] = ODD[odd["value"]]()
        return tuple(values)
