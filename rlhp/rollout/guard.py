"""The one guard around every call of somebody's environment: made, reset, stepped, drawn, asked for its state, closed.

Whatever an environment raises, and whatever it returns that is not what its spaces say, leaves as `EnvFailed`: one
line with env.id, the call, where in the run that was, and the environment's own words; the exception is its cause, so
a log has the whole traceback. What an environment puts into `info` is its own business and goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from rlhp.config import EnvConfig
from rlhp.errors import RlhpError, one_line
from rlhp.rollout import returned
from rlhp.rollout.returned import Take, Unfit
from rlhp.types import Array

_log = logging.getLogger(__name__)


_told_limit: set[str] = set()
"""Environments of which this process has said that they cut episodes themselves."""


class EnvFailed(RlhpError):
    """The environment raised, or returned what it must not: one line."""


@contextmanager
def blamed(config: EnvConfig, call: str, where: str = "") -> Iterator[None]:
    """What is raised inside is the environment's, and leaves as EnvFailed; what is ours already stays."""
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
    """Whether somebody ends this process, with Ctrl-C or as Ray does; an environment's own SystemExit is a failure."""
    return isinstance(error, KeyboardInterrupt) or hasattr(error, "ray_terminate_msg")


class Guarded(gym.Wrapper[Any, Any, Any, Any]):
    """One environment of somebody's, inside every wrapper of ours."""

    def __init__(self, env: gym.Env[Any, Any], config: EnvConfig, *, who: str = "", keeps_info: bool = False) -> None:
        """`who` steps it, for messages. `keeps_info` for our own wrapper around a known task, which reads it and deals
        with a simulator that leaves the finite numbers; then these are not looked at here."""
        super().__init__(env)
        self._config, self._who, self._known_task = config, who, keeps_info
        self._take: Take = returned.as_it_is
        with blamed(config, "its spaces"):
            self._observation_space, self._action_space = env.observation_space, env.action_space
            if not keeps_info:
                self._take = returned.obs_taker(env.observation_space)
        with blamed(config, "its metadata"):
            metadata: Any = env.metadata
            self._metadata = dict(metadata) if isinstance(metadata, dict) else {}
        self._seed: int | None = None
        self._episodes = self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment resets, with an `info` of nothing."""
        self._seed = self._seed if seed is None else seed
        self._episodes, self._steps = self._episodes + 1, 0
        try:
            more = {} if options is None else {"options": options}
            obs, info = returned.reset_results(self.env.reset(seed=seed, **more))
            return self._take(obs), (dict(info) if self._known_task else {})
        except Unfit as error:
            raise EnvFailed(_line(self._config, f"reset: {error}", self._where())) from error
        except BaseException as error:
            raise_as_failed(self._config, "reset", self._where(), error)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment steps, with an `info` of nothing."""
        self._steps += 1
        try:
            own = action.copy() if isinstance(action, np.ndarray) else action  # many scale or clip it in place
            obs, reward, terminated, truncated, info = returned.step_results(self.env.step(own))
            if self._known_task:
                return obs, reward, terminated, truncated, info
            obs, reward = self._take(obs), returned.reward(reward)
            terminated = returned.flag(terminated, "terminated")
            truncated = returned.flag(truncated, "truncated")
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
            return returned.frame(self.env.render())

    def asked(self, call: str) -> AbstractContextManager[None]:
        """What is raised inside is this environment's, asked for something else than the above."""
        return blamed(self._config, call, self._where())

    def close(self) -> None:
        """Close it; a failure is said and changes nothing, since nobody needs it any more."""
        try:
            self.env.close()  # type: ignore[no-untyped-call]
        except BaseException as error:
            if ends_process(error):
                raise
            _log.warning("%s", _line(self._config, f"close failed with {one_line(error)}", self._where()))
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
    """A vector implementation of somebody's own. Of a list of seeds it takes the first: it has one generator."""

    def __init__(self, env: VectorEnv[Any, Any, Any], config: EnvConfig, *, who: str = "") -> None:
        super().__init__(env)
        self._config, self._who, self._steps = config, who, 0

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environments reset, with an `info` of nothing."""
        first = seed if seed is None or isinstance(seed, int) else seed[0]
        self._steps = 0
        where = f"{self._who}, seed {first}".removeprefix(", ")
        with blamed(self._config, "reset", where):
            obs, _ = returned.reset_results(self.env.reset(seed=None if first is None else int(first), options=options))
            return self._taken(obs), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the environments step, with an `info` of nothing."""
        self._steps += 1
        with blamed(self._config, "step", f"{self._who}, step {self._steps}".removeprefix(", ")):
            obs, paid, terminated, truncated, _ = returned.step_results(self.env.step(np.array(actions)))
            paid = self._row(np.asarray(paid), "reward", "fiu")
            if not (fine := np.abs(paid) <= returned.LARGEST_REWARD).all():
                returned.reward(paid[~fine][0])
            terminated = self._row(np.asarray(terminated), "terminated", "b")
            return self._taken(obs), paid, terminated, self._row(np.asarray(truncated), "truncated", "b"), {}

    def _taken(self, shown: Any) -> Array:
        obs: Array = np.asarray(shown)
        space: Any = self.single_observation_space
        wanted: Any = (self.num_envs, *(space.shape or ()))
        if obs.shape != wanted or not np.can_cast(obs.dtype, np.dtype(space.dtype), "same_kind"):
            raise Unfit(f"observations: expected shape {wanted} of {space.dtype}, got {shape(obs)}")
        if obs.dtype.kind == "f" and not (fine := returned.finite(obs)).all():
            raise Unfit(f"observations: expected finite numbers, got {obs[~fine][0]}")
        return obs

    def _row(self, values: Array, name: str, kinds: str) -> Array:
        if values.shape != (self.num_envs,) or values.dtype.kind not in kinds:
            raise Unfit(f"{name}: expected one for each of {self.num_envs} environments, got {shape(values)}")
        return values


def shape(values: Array) -> str:
    """What was returned, in a few words."""
    return f"shape {values.shape} of {values.dtype}"


def _line(config: EnvConfig, what: str, where: str) -> str:
    return f"env.id={config.id!r}: {what}{f' ({where})' if where else ''}"
