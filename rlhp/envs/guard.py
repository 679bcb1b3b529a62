"""The one guard around every call of somebody's environment: made, reset, stepped,
drawn, asked for its state, closed.

Whatever an environment raises, and whatever it returns that is not what its spaces say,
leaves as `EnvFailed`: one line with env.id, the call, where in the run that was, and
the environment's own words; the exception is its cause, so a log has the whole
traceback. What an environment puts into `info` is its own business and goes no further.

The checks hold what was returned against what Gymnasium asks and against the
environment's own spaces. Each gives the value back in a form that nothing later
stumbles over; `Unfit` says key, expected and got. They run at every step, so a value
that is as it should be costs well under a microsecond.

Simulators crash. So an env runner throws its environments away with whatever they had
not finished, makes new ones and goes on, at most `RETRIES` times within
`FORGIVEN_STEPS` env steps; then the run ends with the environment's own words.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from rlhp.config.schema import EnvConfig
from rlhp.errors import RlhpError, RoleBroken, one_line, root
from rlhp.types import Array

LARGEST = float(np.finfo(np.float32).max)
"""Networks and stored segments hold float32: a larger number is infinite there."""
LARGEST_REWARD = 1e12
"""The square of a sum of larger ones is no float32 any more, and returns are squared.
"""
_SURE = 1e76
"""Below this a sum of squares says that every part is finite, also as float32."""

Take = Callable[[Any], Any]


class Unfit(ValueError):
    """What was returned is not what the space, or Gymnasium, says."""


def obs_taker(space: gym.Space[Any]) -> Take:
    """Takes observations of this space; Unfit for another structure, shape or kind, and
    for numbers not finite.
    """
    return _taker(space, "")


def reset_results(result: Any) -> tuple[Any, Any]:
    """`(obs, info)`."""
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
        raise Unfit(f"returns two values (obs, info), info a dict; got {shown(result)}")
    return result


def step_results(result: Any) -> tuple[Any, Any, Any, Any, Any]:
    """`(obs, reward, terminated, truncated, info)`."""
    if not isinstance(result, tuple) or len(result) != 5 or not isinstance(result[4], Mapping):
        raise Unfit(
            "returns five values (obs, reward, terminated, truncated, info), info a dict; got "
            f"{shown(result)}"
        )
    return result


def reward_value(value: Any) -> float:
    """One finite number, no larger than float32 can square; an array of one is that
    number.
    """
    if type(value) is not float:
        number = _array(value)
        if number is None or number.size != 1 or number.dtype.kind not in "fiub":
            raise Unfit(f"reward: expected one number, got {shown(value)}")
        value = float(number.reshape(())[()])
    if not -LARGEST_REWARD <= value <= LARGEST_REWARD:
        raise Unfit(
            f"reward: expected a finite number, at most {LARGEST_REWARD:g} either way, got {value}"
        )
    return float(value)


def flag(value: Any, name: str) -> bool:
    """A truth value; 0 and 1, and an array of one, are such too."""
    if value is True or value is False:
        return value
    truth = _array(value)
    if (
        truth is None
        or truth.size != 1
        or truth.dtype.kind not in "biu"
        or truth.reshape(()) not in (0, 1)
    ):
        raise Unfit(f"{name}: expected True or False, got {shown(value)}")
    return bool(truth.reshape(()))


def frame(value: Any) -> Array:
    """What `render` returned as [H, W, 3] uint8: of RGBA without the last channel, of
    gray three times the same.
    """
    picture = _array(value)
    rule = "expected a picture [H, W, 3] of bytes, or one that is RGBA or gray"
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
        return (
            f"a {type(value).__name__} of {len(value)} "
            f"({', '.join(type(each).__name__ for each in value)})"
        )
    if isinstance(value, bool | int | float | str | None):
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "..."
    return f"a {type(value).__name__}"


def finite(values: Array) -> Array:
    """Which of these a network can take."""
    fine: Array = np.isfinite(values)
    return (
        fine & (np.abs(values) <= LARGEST)
        if values.dtype.itemsize > 4 and values.dtype.kind == "f"
        else fine
    )


def out_of_bounds(space: gym.Space[Any], obs: Any, path: str = "") -> str | None:
    """The first place where a taken observation lies outside the finite bounds of its
    space; None for none.
    """
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
                return (
                    f"the observation{_where(path)} is {values[at]}, {word} its bound {bound[at]}"
                )
    return None


def _taker(space: gym.Space[Any], path: str) -> Take:
    if isinstance(space, gym.spaces.Box):
        return _box_taker(space, path)
    if isinstance(space, gym.spaces.Discrete):
        return _discrete_taker(space, path)
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        return _parts_taker(space, path)
    return as_it_is  # not supported, which `rlhp.envs.spaces.describe` says


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
                raise Unfit(
                    f"the observation{_where(path)}: expected finite numbers, got {flat[~fine][0]}"
                )
        return obs

    return take


def _surely_finite(flat: Array) -> bool:
    """A sum of squares is finite where all its parts are, and takes a quarter of the
    time of asking each.
    """
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
            raise Unfit(
                f"the observation{_where(path)}: expected a whole number from {low} to {high}, "
                f"got {value}"
            )
        return np.int64(value)

    return take


def _parts_taker(space: gym.spaces.Dict | gym.spaces.Tuple, path: str) -> Take:
    takers = {
        key: _taker(child, f"{path}/{key}" if path else str(key)) for key, child in _children(space)
    }
    named = isinstance(space, gym.spaces.Dict)

    def take(obs: Any) -> Any:
        if named:
            if not isinstance(obs, Mapping) or takers.keys() - obs.keys():
                keys = f"the keys {_keys(obs)}" if isinstance(obs, Mapping) else shown(obs)
                raise Unfit(
                    f"the observation{_where(path)}: expected the keys {_keys(takers)}, got {keys}"
                )
            return {key: part(obs[key]) for key, part in takers.items()}
        if not isinstance(obs, tuple | list) or len(obs) != len(takers):
            raise Unfit(
                f"the observation{_where(path)}: expected a tuple of {len(takers)}, got "
                f"{shown(obs)}"
            )
        return tuple(part(obs[key]) for key, part in takers.items())

    return take


def _as_box(obs: Any, shape: tuple[int, ...], dtype: np.dtype[Any], path: str) -> Array:
    """The same numbers as an array of this shape and dtype."""
    values = _array(obs)
    if values is None or values.dtype.kind not in "fiub":
        raise Unfit(
            f"the observation{_where(path)}: expected numbers of shape {shape}, got {shown(obs)}"
        )
    if values.shape != shape:
        raise Unfit(f"the observation{_where(path)}: expected shape {shape}, got {values.shape}")
    if not np.can_cast(values.dtype, dtype, "same_kind") and not _whole_and_fitting(values, dtype):
        raise Unfit(f"the observation{_where(path)}: expected {dtype}, got {values.dtype}")
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        return values.astype(dtype)


def _whole_and_fitting(values: Array, dtype: np.dtype[Any]) -> bool:
    """Whole numbers of another type that this one can hold, as Python's in an array of
    bytes.
    """
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
    return (
        list(space.spaces.items())
        if isinstance(space, gym.spaces.Dict)
        else list(enumerate(space.spaces))
    )


def _keys(mapping: Mapping[Any, Any]) -> str:
    return ", ".join(str(key) for key in mapping) or "of an empty dict"


def _where(path: str) -> str:
    return f" at {path!r}" if path else ""


pass

_log = logging.getLogger(__name__)


_told_limit: set[str] = set()
"""Environments of which this process has said that they cut episodes themselves."""


class EnvFailed(RlhpError):
    """The environment raised, or returned what it must not: one line."""


@contextmanager
def blamed(config: EnvConfig, call: str, where: str = "") -> Iterator[None]:
    """What is raised inside is the environment's, and leaves as EnvFailed; what is ours
    already stays.
    """
    try:
        yield
    except RlhpError:
        raise
    except Unfit as error:
        raise EnvFailed(_line(config, f"{call}: {error}", where)) from error
    except BaseException as error:
        raise_as_failed(config, call, where, error)


def raise_as_failed(config: EnvConfig, call: str, where: str, error: BaseException) -> NoReturn:
    """EnvFailed from this error, unless it is somebody's end of this process."""
    if ends_process(error):
        raise error
    raise EnvFailed(_line(config, f"{call} failed with {one_line(error)}", where)) from error


def ends_process(error: BaseException) -> bool:
    """Whether somebody ends this process, with Ctrl-C or as Ray does; an environment's
    own SystemExit is a failure.
    """
    return isinstance(error, KeyboardInterrupt) or hasattr(error, "ray_terminate_msg")


class Guarded(gym.Wrapper[Any, Any, Any, Any]):
    """One environment of somebody's, inside every wrapper of ours."""

    def __init__(
        self, env: gym.Env[Any, Any], config: EnvConfig, *, who: str = "", keeps_info: bool = False
    ) -> None:
        """`who` steps it, for messages. `keeps_info` for our own wrapper around a known
        task, which reads it and deals with a simulator that leaves the finite numbers;
        then these are not looked at here.
        """
        super().__init__(env)
        self._config, self._who, self._known_task = config, who, keeps_info
        self._take: Take = as_it_is
        with blamed(config, "its spaces"):
            self._observation_space, self._action_space = env.observation_space, env.action_space
            if not keeps_info:
                self._take = obs_taker(env.observation_space)
        with blamed(config, "its metadata"):
            metadata: Any = env.metadata
            self._metadata = dict(metadata) if isinstance(metadata, dict) else {}
        self._seed: int | None = None
        self._episodes = self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; its `info` is left out."""
        self._seed = self._seed if seed is None else seed
        self._episodes, self._steps = self._episodes + 1, 0
        try:
            more = {} if options is None else {"options": options}
            obs, info = reset_results(self.env.reset(seed=seed, **more))
            return self._take(obs), (dict(info) if self._known_task else {})
        except Unfit as error:
            raise EnvFailed(_line(self._config, f"reset: {error}", self._where())) from error
        except BaseException as error:
            raise_as_failed(self._config, "reset", self._where(), error)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment; its `info` is left out."""
        self._steps += 1
        try:
            # many scale or clip it in place
            own = action.copy() if isinstance(action, np.ndarray) else action
            obs, reward, terminated, truncated, info = step_results(self.env.step(own))
            if self._known_task:
                return obs, reward, terminated, truncated, info
            obs, reward = self._take(obs), reward_value(reward)
            terminated = flag(terminated, "terminated")
            truncated = flag(truncated, "truncated")
        except Unfit as error:
            raise EnvFailed(_line(self._config, f"step: {error}", self._where())) from error
        except BaseException as error:
            raise_as_failed(self._config, "step", self._where(), error)
        if truncated and self._config.id not in _told_limit:
            self._tell_limit()
        return obs, reward, terminated, truncated, {}

    def render(self) -> Any:
        """[H, W, 3] uint8: as the environment draws itself, in RGB."""
        with blamed(self._config, "render", self._where()):
            return frame(self.env.render())

    def asked(self, call: str) -> AbstractContextManager[None]:
        """What is raised inside is this environment's, asked for something else than
        the above.
        """
        return blamed(self._config, call, self._where())

    def close(self) -> None:
        """Close it; a failure is said and changes nothing, since nobody needs it any
        more.
        """
        try:
            self.env.close()  # type: ignore[no-untyped-call]
        except BaseException as error:
            if ends_process(error):
                raise
            _log.warning(
                "%s", _line(self._config, f"close failed with {one_line(error)}", self._where())
            )
            _log.info("its traceback", exc_info=True)  # for a log, where there is one

    def _tell_limit(self) -> None:
        _told_limit.add(self._config.id)
        limit = self._config.max_episode_steps
        if limit is not None and self._steps < limit:
            _log.warning(
                "%s cut an episode itself after %d steps, before env.max_episode_steps=%d",
                self._config.id, self._steps, limit,
            )  # fmt: skip

    def _where(self) -> str:
        seed = "" if self._seed is None else f", seed {self._seed}"
        at = f"step {self._steps} of " if self._steps else ""
        who = f"{self._who}, " if self._who else ""
        return f"{who}{at}episode {self._episodes}{seed}"


class GuardedVector(VectorWrapper):
    """A vector implementation of somebody's own. Of a list of seeds it takes the first:
    it has one generator.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], config: EnvConfig, *, who: str = "") -> None:
        super().__init__(env)
        self._config, self._who, self._steps = config, who, 0

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environments; their `info` is left out."""
        first = seed if seed is None or isinstance(seed, int) else seed[0]
        self._steps = 0
        where = f"{self._who}, seed {first}".removeprefix(", ")
        with blamed(self._config, "reset", where):
            obs, _ = reset_results(
                self.env.reset(seed=None if first is None else int(first), options=options)
            )
            return self._taken(obs), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the environments step, with an `info` of nothing."""
        self._steps += 1
        with blamed(self._config, "step", f"{self._who}, step {self._steps}".removeprefix(", ")):
            obs, paid, terminated, truncated, _ = step_results(self.env.step(np.array(actions)))
            paid = self._row(np.asarray(paid), "reward", "fiu")
            if not (fine := np.abs(paid) <= LARGEST_REWARD).all():
                reward_value(paid[~fine][0])
            terminated = self._row(np.asarray(terminated), "terminated", "b")
            return (
                self._taken(obs),
                paid,
                terminated,
                self._row(np.asarray(truncated), "truncated", "b"),
                {},
            )

    def _taken(self, shown: Any) -> Array:
        obs: Array = np.asarray(shown)
        space: Any = self.single_observation_space
        wanted: Any = (self.num_envs, *(space.shape or ()))
        if obs.shape != wanted or not np.can_cast(obs.dtype, np.dtype(space.dtype), "same_kind"):
            raise Unfit(f"observations: expected shape {wanted} of {space.dtype}, got {shape(obs)}")
        if obs.dtype.kind == "f" and not (fine := finite(obs)).all():
            raise Unfit(f"observations: expected finite numbers, got {obs[~fine][0]}")
        return obs

    def _row(self, values: Array, name: str, kinds: str) -> Array:
        if values.shape != (self.num_envs,) or values.dtype.kind not in kinds:
            raise Unfit(
                f"{name}: expected one for each of {self.num_envs} environments, got "
                f"{shape(values)}"
            )
        return values


def shape(values: Array) -> str:
    """What was returned, in a few words."""
    return f"shape {values.shape} of {values.dtype}"


def _line(config: EnvConfig, what: str, where: str) -> str:
    return f"env.id={config.id!r}: {what}{f' ({where})' if where else ''}"


log = logging.getLogger(__name__)

RETRIES = 3
FORGIVEN_STEPS = 10_000
"""After so many env steps of an env runner without another one, a failure counts no
longer.
"""


class Failures:
    """Those of one env runner."""

    def __init__(self) -> None:
        self.total = 0
        """Since it was started."""
        self._counted, self._steps = 0, 0

    def count(self, error: EnvFailed) -> None:
        """Another one; EnvFailed where there were too many."""
        if self._steps >= FORGIVEN_STEPS:
            self._counted = 0
        self._counted, self._steps, self.total = self._counted + 1, 0, self.total + 1
        if self._counted > RETRIES:
            raise EnvFailed(f"{error}; it was made anew {RETRIES} times before") from error
        log.warning("made anew, %d of %d: %s", self._counted, RETRIES, error, exc_info=error)

    def passed(self, steps: int) -> None:
        """So many env steps were taken without one."""
        self._steps += steps


@dataclass(frozen=True, slots=True)
class Stopped:
    """What has stopped an env runner for good, in texts: an exception of somebody's may
    not survive the way to the driver.
    """

    line: str
    trace: str
    ours: bool

    @staticmethod
    def by(error: BaseException) -> Stopped:
        """An error that a user can cure is told in its own words, any other as a fault
        of ours.
        """
        first, trace = root(error), "".join(traceback.format_exception(error))
        return (
            Stopped(str(first), trace, False)
            if isinstance(first, RlhpError)
            else Stopped(one_line(first), trace, True)
        )

    def error(self) -> Exception:
        """To be raised, here or in the driver, with the traceback as a note for the
        log.
        """
        error = RoleBroken(self.line) if self.ours else RlhpError(self.line)
        error.add_note(self.trace)
        return error
