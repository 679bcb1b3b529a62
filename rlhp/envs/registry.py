"""From the name in a config to the environment it means, still without a time limit.

A name is a Gymnasium id (`Hopper-v5`), one in a package to import first
(`ale_py:ALE/Pong-v5`), or `package.module:factory`, anything callable that returns a
gymnasium.Env. Each way of failing is one ValueError that says which name failed and
what to do about it.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, cast

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import TimeLimit

from rlhp.config.schema import EnvConfig
from rlhp.envs.guard import EnvFailed, blamed, ends_process
from rlhp.envs.mujoco_tasks import task_kwargs
from rlhp.errors import RlhpError, one_line
from rlhp.system import imports

_log = logging.getLogger(__name__)

Env = gym.Env[Any, Any]

_OURS = ("max_episode_steps", "render_mode", "disable_env_checker")
"""Arguments of `gymnasium.make` that other keys of the config decide."""


def bare_env(config: EnvConfig, *, render_mode: str | None) -> tuple[Env, int | None]:
    """The environment as its author made it but without a time limit around it, and
    what that limit was.
    """
    spec = registered(config.id)
    kwargs = {**(task_kwargs(config.id) if config.hide_termination else {}), **config.kwargs}
    if spec is not None:
        for name in _OURS:
            if name in kwargs:
                way_out = (
                    " Set env.max_episode_steps instead."
                    if name == "max_episode_steps"
                    else " Remove it."
                )
                raise RlhpError(
                    f"env.kwargs.{name}={kwargs[name]!r} is decided elsewhere.{way_out}"
                )
        if "mujoco" in str(spec.entry_point):
            _quiet_mujoco()
        # an explicit None would reach environments that take no render_mode
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        make = partial(gym.make, spec, max_episode_steps=-1, disable_env_checker=True)
        return _without_limit(config, _call(config, make, kwargs), stated=spec.max_episode_steps)
    factory = _imported(config.id)
    if render_mode is not None and "render_mode" in _parameters(factory):
        kwargs["render_mode"] = render_mode
    env = _call(config, factory, kwargs)
    if render_mode is not None and env.render_mode != render_mode:
        raise RlhpError(
            f"env.id={config.id!r} cannot be drawn: it was made with "
            f"render_mode={env.render_mode!r} where {render_mode!r} was asked for. Give the "
            "factory an argument `render_mode` and pass it on."
        )
    return _without_limit(config, env, stated=None)


def registered(env_id: str) -> EnvSpec | None:
    """The Gymnasium spec of `Name-v0` or `package:Name-v0`; None for
    `package.module:factory`.
    """
    module, colon, name = env_id.rpartition(":")
    if colon and all(part.isidentifier() for part in name.split(".")):
        return None
    if not colon and name.startswith("ALE/"):
        module = "ale_py"  # registers its environments when imported
    if not colon and name.startswith("MovingDot-"):
        module = "rlhp.envs.moving_dot"
    if module:
        imports.load_module(module, key="env.id", value=env_id)
    spec = gym.registry.get(name)
    if spec is None:
        close = get_close_matches(name, gym.registry, n=1, cutoff=0.6)
        suggestion = f" Did you mean {close[0]!r}?" if close else ""
        raise RlhpError(
            f"env.id={env_id!r} is no Gymnasium id.{suggestion} An environment of your own is "
            "named as `package.module:factory`."
        )
    return spec


def _call(config: EnvConfig, make: Callable[..., Any], kwargs: dict[str, Any]) -> Env:
    try:
        env = make(**kwargs)
    # whatever the environment's author raises, the user needs to know which env it was
    except BaseException as error:
        if isinstance(error, RlhpError) or ends_process(error):
            raise
        missing = isinstance(error, ImportError | gym.error.DependencyNotInstalled)
        hint = (
            " Install what it needs; pip install 'rlhp[envs]' covers Gymnasium's own."
            if missing
            else ""
        )
        why = one_line(error).rstrip(".")
        raise EnvFailed(
            f"env.id={config.id!r} could not be made with env.kwargs={kwargs}: {why}.{hint}"
        ) from error
    if not isinstance(env, gym.Env):
        raise RlhpError(
            f"env.id={config.id!r} returned a {type(env).__name__}, not a gymnasium.Env. "
            "Return an instance of a class derived from gymnasium.Env."
        )
    return env


def _imported(env_id: str) -> Callable[..., Any]:
    """The callable behind `package.module:factory`."""
    found = imports.load(env_id, key="env.id")
    if not callable(found):
        raise RlhpError(
            f"env.id={env_id!r} names a {type(found).__name__}, which cannot be called. "
            "Name a function or a class that returns a gymnasium.Env."
        )
    if "mujoco" in sys.modules:
        _quiet_mujoco()
    return cast("Callable[..., Any]", found)


def _parameters(factory: Callable[..., Any]) -> Sequence[str]:
    try:
        return list(inspect.signature(factory).parameters)
    except (TypeError, ValueError):  # some C callables have no signature
        return []


def _without_limit(config: EnvConfig, env: Env, *, stated: int | None) -> tuple[Env, int | None]:
    """The environment without the time limits around it or under other wrappers, and
    the tightest limit.
    """
    with blamed(config, "its wrappers"):
        if stated is None and env.spec is not None:
            stated = env.spec.max_episode_steps
        limits = [stated] if stated is not None and stated > 0 else []
        above, each = None, env
        while isinstance(each, gym.Wrapper):
            if not isinstance(each, TimeLimit):
                above, each = each, each.env
                continue
            limits.append(each._max_episode_steps)
            each = each.env
            if above is None:
                env = each
            else:
                above.env = each
    return env, min(limits, default=None)


def _quiet_mujoco() -> None:
    """MuJoCo's warnings through `logging`, instead of stderr and a MUJOCO_LOG.TXT in
    the working directory.

    The one about `settotalmass` is dropped: it speaks to the author of Gymnasium's
    HalfCheetah, once per environment. A handler that somebody else installed stays.
    """
    try:
        mujoco: Any = importlib.import_module("mujoco")
    except ImportError:
        return  # making the environment says so, in words
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_mujoco_warning)


def _mujoco_warning(text: str) -> None:
    if "'settotalmass'" not in text:
        _log.warning("MuJoCo: %s", text)
