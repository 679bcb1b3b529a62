"""What an environment returns, held against what Gymnasium asks and against its own spaces.

Each function takes the value as it was returned and gives it back in a form that nothing later stumbles over; `Unfit`
says key, expected and got. They run at every step, so what is as it should be costs well under a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from rlhp.types import Array

LARGEST = float(np.finfo(np.float32).max)
"""Networks and stored segments hold float32: a larger number is infinite there."""
LARGEST_REWARD = 1e12
"""The square of a sum of larger ones is no float32 any more, and returns are squared."""
_SURE = 1e76
"""Below this a sum of squares says that every part is finite, also as float32."""

Take = Callable[[Any], Any]


class Unfit(ValueError):
    """What was returned is not what the space, or Gymnasium, says."""


def obs_taker(space: gym.Space[Any]) -> Take:
    """Takes observations of this space; Unfit for another structure, shape or kind, and for numbers not finite."""
    return _taker(space, "")


def reset_results(result: Any) -> tuple[Any, Any]:
    """`(obs, info)`."""
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
        raise Unfit(f"returns two values (obs, info), info a dict; got {shown(result)}")
    return result


def step_results(result: Any) -> tuple[Any, Any, Any, Any, Any]:
    """`(obs, reward, terminated, truncated, info)`."""
    if not isinstance(result, tuple) or len(result) != 5 or not isinstance(result[4], Mapping):
        raise Unfit(f"returns five values (obs, reward, terminated, truncated, info), info a dict; got {shown(result)}")
    return result


def reward(value: Any) -> float:
    """One finite number, no larger than float32 can square; an array of one is that number."""
    if type(value) is not float:
        number = _array(value)
        if number is None or number.size != 1 or number.dtype.kind not in "fiub":
            raise Unfit(f"reward: expected one number, got {shown(value)}")
        value = float(number.reshape(())[()])
    if not -LARGEST_REWARD <= value <= LARGEST_REWARD:
        raise Unfit(f"reward: expected a finite number, at most {LARGEST_REWARD:g} either way, got {value}")
    return float(value)


def flag(value: Any, name: str) -> bool:
    """A truth value; 0 and 1, and an array of one, are such too."""
    if value is True or value is False:
        return value
    truth = _array(value)
    if truth is None or truth.size != 1 or truth.dtype.kind not in "biu" or truth.reshape(()) not in (0, 1):
        raise Unfit(f"{name}: expected True or False, got {shown(value)}")
    return bool(truth.reshape(()))


def frame(value: Any) -> Array:
    """What `render` returned as [H, W, 3] uint8: of RGBA without the last channel, of grey three times the same."""
    picture = _array(value)
    rule = "expected a picture [H, W, 3] of bytes, or one that is RGBA or grey"
    if picture is None or picture.ndim not in (2, 3) or 0 in picture.shape:
        raise Unfit(f"{rule}; got {shown(value)}")
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.shape[-1] not in (1, 3, 4):
        raise Unfit(f"{rule}; got shape {picture.shape}")
    if picture.dtype.kind == "b":
        picture = picture * np.uint8(255)
    if not _whole_and_fitting(picture, np.dtype(np.uint8)):
        raise Unfit(f"{rule}; got {picture.dtype} from {picture.min()} to {picture.max()}")
    picture = picture[..., :3].astype(np.uint8)
    return np.repeat(picture, 3, -1) if picture.shape[-1] == 1 else picture


def shown(value: Any) -> str:
    """What somebody's code returned, in a few words and one line."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, tuple | list) and len(value) <= 6:
        return f"a {type(value).__name__} of {len(value)} ({', '.join(type(each).__name__ for each in value)})"
    if isinstance(value, bool | int | float | str | None):
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "..."
    return f"a {type(value).__name__}"


def finite(values: Array) -> Array:
    """Which of these a network can take."""
    fine: Array = np.isfinite(values)
    return fine & (np.abs(values) <= LARGEST) if values.dtype.itemsize > 4 and values.dtype.kind == "f" else fine


def out_of_bounds(space: gym.Space[Any], obs: Any, path: str = "") -> str | None:
    """The first place where a taken observation lies outside the finite bounds of its space; None for none."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        for key, child in _children(space):
            if found := out_of_bounds(child, obs[key], f"{path}/{key}" if path else str(key)):
                return found
    if isinstance(space, gym.spaces.Box):
        values = np.asarray(obs)
        low, high = space.low, space.high
        for beyond, bound, word in ((values < low, low, "below"), (values > high, high, "above")):
            if beyond.any():
                at = tuple(int(index) for index in np.argwhere(beyond)[0])
                return f"the observation{_where(path)} is {values[at]}, {word} its bound {bound[at]}"
    return None


def _taker(space: gym.Space[Any], path: str) -> Take:
    if isinstance(space, gym.spaces.Box):
        return _box_taker(space, path)
    if isinstance(space, gym.spaces.Discrete):
        return _discrete_taker(space, path)
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        return _parts_taker(space, path)
    return as_it_is  # not supported, which `rlhp.spaces.describe` says


def as_it_is(obs: Any) -> Any:
    """Takes anything."""
    return obs


def _box_taker(space: gym.spaces.Box, path: str) -> Take:
    shape, dtype = tuple(space.shape), np.dtype(space.dtype)
    floats = dtype.kind == "f"

    def take(obs: Any) -> Any:
        if type(obs) is not np.ndarray or obs.shape != shape or obs.dtype != dtype:
            obs = _as_box(obs, shape, dtype, path)
        if floats:
            flat = obs.reshape(-1)
            if not _surely_finite(flat) and not (fine := finite(flat)).all():
                raise Unfit(f"the observation{_where(path)}: expected finite numbers, got {flat[~fine][0]}")
        return obs

    return take


def _surely_finite(flat: Array) -> bool:
    """A sum of squares is finite where all its parts are, and takes a quarter of the time of asking each."""
    try:
        return flat.itemsize >= 4 and float(flat.dot(flat)) < _SURE
    except RuntimeWarning:  # an overflow, where warnings are errors
        return False


def _discrete_taker(space: gym.spaces.Discrete[Any], path: str) -> Take:
    low = int(space.start)
    high = low + int(space.n) - 1

    def take(obs: Any) -> Any:
        number = _array(obs)
        if number is None or number.size != 1 or number.dtype.kind not in "iub":
            raise Unfit(f"the observation{_where(path)}: expected a whole number, got {shown(obs)}")
        value = int(number.reshape(())[()])
        if not low <= value <= high:
            raise Unfit(f"the observation{_where(path)}: expected a whole number from {low} to {high}, got {value}")
        return np.int64(value)

    return take


def _parts_taker(space: gym.spaces.Dict | gym.spaces.Tuple, path: str) -> Take:
    takers = {key: _taker(child, f"{path}/{key}" if path else str(key)) for key, child in _children(space)}
    named = isinstance(space, gym.spaces.Dict)

    def take(obs: Any) -> Any:
        if named:
            if not isinstance(obs, Mapping) or takers.keys() - obs.keys():
                keys = f"the keys {_keys(obs)}" if isinstance(obs, Mapping) else shown(obs)
                raise Unfit(f"the observation{_where(path)}: expected the keys {_keys(takers)}, got {keys}")
            return {key: part(obs[key]) for key, part in takers.items()}
        if not isinstance(obs, tuple | list) or len(obs) != len(takers):
            raise Unfit(f"the observation{_where(path)}: expected a tuple of {len(takers)}, got {shown(obs)}")
        return tuple(part(obs[key]) for key, part in takers.items())

    return take


def _as_box(obs: Any, shape: tuple[int, ...], dtype: np.dtype[Any], path: str) -> Array:
    """The same numbers as an array of this shape and dtype."""
    values = _array(obs)
    if values is None or values.dtype.kind not in "fiub":
        raise Unfit(f"the observation{_where(path)}: expected numbers of shape {shape}, got {shown(obs)}")
    if values.shape != shape:
        raise Unfit(f"the observation{_where(path)}: expected shape {shape}, got {values.shape}")
    if not np.can_cast(values.dtype, dtype, "same_kind") and not _whole_and_fitting(values, dtype):
        raise Unfit(f"the observation{_where(path)}: expected {dtype}, got {values.dtype}")
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        return values.astype(dtype)


def _whole_and_fitting(values: Array, dtype: np.dtype[Any]) -> bool:
    """Whole numbers of another type that this one can hold, as Python's in an array of bytes."""
    if values.dtype.kind not in "iu" or dtype.kind not in "iub":
        return False
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return values.size == 0 or (int(values.min()) >= low and int(values.max()) <= high)


def _array(value: Any) -> Array | None:
    """Whatever numpy makes of it; None where that is nothing."""
    try:
        return np.asarray(value)
    except Exception:  # ragged, on a GPU, or with a conversion of its own that fails
        return None


def _children(space: gym.spaces.Dict | gym.spaces.Tuple) -> list[tuple[Any, gym.Space[Any]]]:
    return list(space.spaces.items()) if isinstance(space, gym.spaces.Dict) else list(enumerate(space.spaces))


def _keys(mapping: Mapping[Any, Any]) -> str:
    return ", ".join(str(key) for key in mapping) or "of an empty dict"


def _where(path: str) -> str:
    return f" at {path!r}" if path else ""
