"""Atari games played again: what is kept of a game for that, and the pictures that come
of it.

A console without chance plays the same game to the same actions. So an env runner
keeps, of each step, the action and whether a game was just taken over (after how many
frames); a segment carries those since its game began, some hundred bytes, in place of
pictures. Nothing is drawn before somebody is asked.

Shapes: K steps of a segment, L steps since its game began.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from rlhp.config.schema import EnvConfig
from rlhp.envs.atari import SCORES, SCREEN, game_of
from rlhp.envs.states import CannotDraw
from rlhp.types import Array

_LENGTH = struct.Struct("<I")


class GameLog:
    """The steps of one episode, in which several games may have been played."""

    def __init__(self) -> None:
        self._steps = np.zeros((0, 2), np.int16)

    def add(self, begun: Array, actions: Array) -> None:
        """Further steps: frames before the game was taken over [T], 0 where it was not
        just then, and actions [T].
        """
        self._steps = np.concatenate([self._steps, np.stack([begun, actions], 1).astype(np.int16)])

    def state(self, start: int, stop: int) -> Array:
        """[K, S] float64, the type that simulator states have: the game up to these
        steps, and they themselves.
        """
        first = np.flatnonzero(self._steps[: start + 1, 0])[-1]
        data = zlib.compress(self._steps[first:stop].astype("<i2").tobytes())
        data = _LENGTH.pack(len(data)) + data
        width = -(-len(data) // (8 * (stop - start)))
        return np.frombuffer(data.ljust(8 * width * (stop - start), b"\0"), "<f8").reshape(
            stop - start, width
        )


def steps_of(state: Array) -> tuple[Array, Array]:
    """What `GameLog.state` holds: frames before the game was taken over [L] and actions
    [L]; CannotDraw for another.
    """
    data = np.ascontiguousarray(state, "<f8").tobytes()
    try:
        (size,) = _LENGTH.unpack_from(data)
        steps = np.frombuffer(
            zlib.decompress(data[_LENGTH.size : _LENGTH.size + size]), "<i2"
        ).reshape(-1, 2)
    except (struct.error, zlib.error, ValueError) as error:
        raise CannotDraw(f"the record of the game is damaged: {error}") from error
    if len(steps) < len(state) or steps[0, 0] <= 0:
        raise CannotDraw(
            f"the record of the game has {len(steps)} steps, or does not begin with the game"
        )
    return steps[:, 0], steps[:, 1]


def replay(config: EnvConfig, state: Array) -> tuple[Array, Array]:
    """What was to be seen before each step: colored screens [K, 210, 160, 3], and gray
    frames [K, size, size].
    """
    import ale_py

    begun, actions = steps_of(state)
    ale, names = _console(config)
    wait = [ale_py.Action.FIRE] if ale_py.Action.FIRE in names else []
    skip, first = config.atari.frame_skip, len(actions) - len(state)
    colored, gray = [], []
    screens: list[tuple[Array, Array]] = []
    for step, (frames, action) in enumerate(zip(begun, actions, strict=True)):
        if frames > 0:
            ale.reset_game()
            for number in range(frames):
                ale.act(wait[number] if number < len(wait) else ale_py.Action.NOOP)
            screens = [(ale.getScreenRGB(), ale.getScreenGrayscale())]
        if step >= first:
            colored.append(np.max([screen for screen, _ in screens], 0))
            gray.append(np.max([screen for _, screen in screens], 0))
        screens = []
        for number in range(skip):
            ale.act(names[action])
            if step >= first - 1 and number >= skip - 2:  # drawing takes longer than playing
                screens.append((ale.getScreenRGB(), ale.getScreenGrayscale()))
    game, size = _game(config), config.atari.size
    for top, bottom, left, right in SCORES.get(game, ()) if config.atari.blank_score else ():
        for screen in (*colored, *gray):
            screen[top:bottom, left:right] = 0
    rows, columns = _shares(SCREEN[0], size), _shares(SCREEN[1], size)
    return np.stack(colored), np.rint(rows @ np.stack(gray).astype(np.float64) @ columns.T)


def _console(config: EnvConfig) -> tuple[Any, Any]:
    """An emulator with the game in it, and the names of actions."""
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    path = ale_py.roms.get_rom_path(_game(config))
    assert path is not None
    ale.loadROM(path)
    every = config.kwargs.get("full_action_space", False)
    return ale, ale.getLegalActionSet() if every else ale.getMinimalActionSet()


def _game(config: EnvConfig) -> str:
    game = game_of(config)
    assert game is not None, f"{config.id} is no Atari game"
    return game


def _shares(many: int, few: int) -> Array:
    """[few, many] how much of each of many pixels in a row goes into each of few: its
    share of the area.
    """
    edges = np.arange(few + 1) * (many / few)
    overlap = np.minimum(edges[1:, None], np.arange(1, many + 1)) - np.maximum(
        edges[:-1, None], np.arange(many)
    )
    shares: Array = np.maximum(overlap, 0) * (few / many)
    return shares
