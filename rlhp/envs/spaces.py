"""What an environment shows and takes, as plain data: leaves, shapes, dtypes, sizes.

A Dict or Tuple observation is kept whole in segments (one array per leaf) and flattened
for the networks: [.., O_flat], Discrete leaves one-hot. A picture is not: it stays
uint8, channel first. Actions stay as executed and are encoded for the reward model: Box
as floats, Discrete and MultiDiscrete one-hot.

Shapes: B rows, O_flat flattened observation, A_flat encoded action, C x H x W a picture
of C channels (for a stack of gray frames, oldest first, C is their number). O is one
row as the networks get it: O_flat or C x H x W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from rlhp.errors import RlhpError
from rlhp.types import Array

LARGEST_BOUND = 1e18
"""Of continuous actions: the square of a larger one is no float32 any more."""
MOST_NUMBERS = 10_000_000
"""In one observation or one encoded action."""
SMALLEST_PICTURE = 12
"""Pixels along an edge, from which a three-dimensional uint8 Box is taken for a
picture.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """One Box or Discrete inside an observation."""

    path: str
    """`""` for a plain observation, else keys joined by `/`."""
    shape: tuple[int, ...]
    dtype: str
    categories: int = 0
    """Size of the one-hot for a Discrete leaf, 0 for a Box."""
    low: int = 0
    """Smallest value of a Discrete leaf."""

    @property
    def size(self) -> int:
        """Flattened length."""
        return self.categories or int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, kw_only=True, slots=True)
class ObsSpec:
    """The leaves of an observation, in the order in which they are flattened."""

    leaves: tuple[Leaf, ...]

    @property
    def size(self) -> int:
        """O_flat."""
        return sum(leaf.size for leaf in self.leaves)

    @property
    def picture(self) -> tuple[int, int, int] | None:
        """(C, H, W) where the observation is one uint8 picture or a stack of gray ones,
        else None.
        """
        if (
            len(self.leaves) != 1
            or np.dtype(self.leaves[0].dtype) != np.uint8
            or len(self.leaves[0].shape) != 3
        ):
            return None
        shape = self.leaves[0].shape
        channels, height, width = (shape[2], *shape[:2]) if self._channel_last else shape
        return (channels, height, width) if min(height, width) >= SMALLEST_PICTURE else None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """O: (O_flat,), or (C, H, W) of a picture."""
        return self.picture or (self.size,)

    @property
    def plain(self) -> bool:
        """True for what the networks take as it is: a one-dimensional Box, a picture
        that is channel first.
        """
        if len(self.leaves) != 1 or self.leaves[0].categories:
            return False
        return len(self.leaves[0].shape) == 1 or self.leaves[0].shape == self.picture

    @property
    def _channel_last(self) -> bool:
        return len(self.leaves[0].shape) == 3 and self.leaves[0].shape[2] < self.leaves[0].shape[0]

    def flatten(self, obs: Mapping[str, Array]) -> Array:
        """Leaves [B, *O] -> float32 [B, O_flat], or of a picture uint8 [B, C, H, W]."""
        if self.picture is not None:
            pictures = np.asarray(obs[self.leaves[0].path])
            return np.moveaxis(pictures, -1, 1) if self._channel_last else pictures
        parts = [_flat(leaf, np.asarray(obs[leaf.path])) for leaf in self.leaves]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def flatten_one(self, obs: Any) -> Array:
        """One observation as the environment returns it -> one row, in the dtype of
        `flat_dtype`.
        """
        if self.picture is not None:
            picture = np.asarray(_at(obs, self.leaves[0].path), np.uint8)
            return np.moveaxis(picture, -1, 0) if self._channel_last else picture
        parts = []
        for leaf in self.leaves:
            value = _at(obs, leaf.path)
            if leaf.categories:
                one_hot = np.zeros(leaf.categories, self.flat_dtype)
                index = int(value) - leaf.low
                # a negative index would silently count from the end
                if not 0 <= index < leaf.categories:
                    raise RlhpError(
                        f"the observation{_where(leaf.path)} is a whole number from {leaf.low} to "
                        f"{leaf.low + leaf.categories - 1}, got {value}; correct the "
                        "environment's observation_space"
                    )
                one_hot[index] = 1
                parts.append(one_hot)
            else:
                parts.append(np.asarray(value, self.flat_dtype).reshape(-1))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def unflatten(self, flat: Array) -> dict[str, Array]:
        """Rows -> leaves [B, *O] in their own dtypes: the inverse of `flatten_one`, row
        by row.
        """
        if self.picture is not None:
            return {self.leaves[0].path: np.moveaxis(flat, 1, -1) if self._channel_last else flat}
        out: dict[str, Array] = {}
        start = 0
        for leaf in self.leaves:
            part = flat[:, start : start + leaf.size]
            start += leaf.size
            if leaf.categories:
                out[leaf.path] = (part.argmax(1) + leaf.low).astype(leaf.dtype)
            else:
                out[leaf.path] = np.array(part, dtype=leaf.dtype).reshape(len(flat), *leaf.shape)
        return out

    @property
    def flat_dtype(self) -> Any:
        """A dtype that holds every leaf exactly; uint8 for a picture."""
        if self.picture is not None:
            return np.dtype(np.uint8)
        boxes = [np.dtype(leaf.dtype) for leaf in self.leaves if not leaf.categories]
        return np.result_type(np.float32, *boxes)

    def flat_space(self) -> gym.spaces.Box:
        """The Box that the policy sees: one-dimensional, or a picture."""
        if self.picture is not None:
            return gym.spaces.Box(0, 255, self.picture, np.uint8)
        return gym.spaces.Box(-np.inf, np.inf, (self.size,), self.flat_dtype)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data for a header or a run directory."""
        return [asdict(leaf) for leaf in self.leaves]

    @staticmethod
    def from_json(data: list[dict[str, Any]]) -> ObsSpec:
        """The inverse of `to_json`."""
        return ObsSpec(
            leaves=tuple(Leaf(**{**leaf, "shape": tuple(leaf["shape"])}) for leaf in data)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionSpec:
    """A Box, a Discrete (one entry in `choices`) or a MultiDiscrete (several)."""

    shape: tuple[int, ...]
    dtype: str
    choices: tuple[int, ...] = ()
    """Number of values per discrete action; empty for a Box."""
    start: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """A_flat."""
        return sum(self.choices) if self.choices else int(np.prod(self.shape, dtype=np.int64))

    def encode(self, actions: Array) -> Array:
        """Executed actions [B, *A] -> float32 [B, A_flat]."""
        if not self.choices:
            return np.asarray(actions, np.float32).reshape(len(actions), self.size)
        columns = np.asarray(actions).reshape(len(actions), len(self.choices)) - np.asarray(
            self.start
        )
        out = np.zeros((len(actions), self.size), np.float32)
        offset = 0
        rows = np.arange(len(actions))
        for column, count in enumerate(self.choices):
            out[rows, offset + columns[:, column]] = 1
            offset += count
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain data for a header or a run directory."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> ActionSpec:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        return ActionSpec(**fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spaces:
    """Both sides of one environment."""

    obs: ObsSpec
    action: ActionSpec

    def to_json(self) -> dict[str, Any]:
        """Plain data for a header or a run directory."""
        return {"obs": self.obs.to_json(), "action": self.action.to_json()}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Spaces:
        """The inverse of `to_json`."""
        return Spaces(
            obs=ObsSpec.from_json(data["obs"]), action=ActionSpec.from_json(data["action"])
        )


def describe(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> Spaces:
    """The spec of these spaces; one ValueError naming whatever is not supported."""
    spaces = Spaces(
        obs=ObsSpec(leaves=tuple(_leaves(observation_space, ""))), action=_action(action_space)
    )
    for what, size, space in (
        ("an observation", spaces.obs.size, observation_space),
        ("an action", spaces.action.size, action_space),
    ):
        if not 1 <= size <= MOST_NUMBERS:
            raise RlhpError(
                f"{what} holds at least one number and at most {MOST_NUMBERS:,}, with one for "
                f"each value of a Discrete; got {size:,} in {_words(space)}. Wrap the environment "
                "so that it has fewer."
            )
    return spaces


def _words(space: Any) -> str:
    """A space in one line."""
    text = " ".join(str(space).split())
    return text if len(text) <= 200 else text[:197] + "..."


def _leaves(space: gym.Space[Any], path: str) -> list[Leaf]:
    if isinstance(space, gym.spaces.Box):
        return [Leaf(path=path, shape=tuple(space.shape), dtype=np.dtype(space.dtype).str)]
    if isinstance(space, gym.spaces.Discrete):
        return [
            Leaf(path=path, shape=(), dtype="<i8", categories=int(space.n), low=int(space.start))
        ]
    children: list[tuple[str, gym.Space[Any]]]
    if isinstance(space, gym.spaces.Dict):
        children = [(_key(key), child) for key, child in space.spaces.items()]
    elif isinstance(space, gym.spaces.Tuple):
        children = [(str(index), child) for index, child in enumerate(space.spaces)]
    else:
        raise RlhpError(
            "an observation is a Box, a Discrete, or a Dict or Tuple of those; got "
            f"{_words(space)}{_where(path)}. Wrap the environment so that it shows one of them."
        )
    return [
        leaf
        for key, child in children
        for leaf in _leaves(child, f"{path}/{key}" if path else str(key))
    ]


def _key(key: Any) -> str:
    """A Dict's key as one part of a path, which `_at` can take apart again."""
    if not isinstance(key, str) or not key or "/" in key:
        raise RlhpError(
            f"the keys of a Dict observation are texts without '/' and not empty, got {key!r}; "
            "rename it"
        )
    return key


def _where(path: str) -> str:
    return f" at {path!r}" if path else ""


def _action(space: gym.Space[Any]) -> ActionSpec:
    if isinstance(space, gym.spaces.Box):
        if not all(
            np.all(np.abs(bound.astype(np.float64)) <= LARGEST_BOUND)
            for bound in (space.low, space.high)
        ):
            raise RlhpError(
                f"a Box of actions needs finite bounds, at most {LARGEST_BOUND:g}, since actions "
                f"are scaled into them; got {_words(space)}. Wrap the environment with "
                "gymnasium.wrappers.RescaleAction or bounds of its own."
            )
        return ActionSpec(shape=tuple(space.shape), dtype=np.dtype(space.dtype).str)
    if isinstance(space, gym.spaces.Discrete):
        return ActionSpec(shape=(), dtype="<i8", choices=(int(space.n),), start=(int(space.start),))
    if isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1:
        start = tuple(int(value) for value in space.start)
        return ActionSpec(
            shape=(len(space.nvec),), dtype="<i8", choices=tuple(map(int, space.nvec)), start=start
        )
    raise RlhpError(
        f"an action is a Box, a Discrete or a one-dimensional MultiDiscrete; got {_words(space)}. "
        "Wrap the environment so that it takes one of them."
    )


def _at(obs: Any, path: str) -> Any:
    for key in path.split("/") if path else ():
        obs = obs[int(key)] if isinstance(obs, tuple | list) else obs[key]
    return obs


def _flat(leaf: Leaf, rows: Array) -> Array:
    if not leaf.categories:
        return rows.astype(np.float32).reshape(len(rows), leaf.size)
    out = np.zeros((len(rows), leaf.categories), np.float32)
    out[np.arange(len(rows)), rows.reshape(-1).astype(np.int64) - leaf.low] = 1
    return out
