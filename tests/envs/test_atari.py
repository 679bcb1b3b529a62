"""Atari games as the paper showed them, against frames made slowly from the emulator
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rlhp.config.schema import EnvConfig
from rlhp.envs.atari import SCORES, AtariGames, blanked
from rlhp.envs.make import make_env, make_vector_env, probe
from rlhp.types import Array

ale_py = pytest.importorskip(
    "ale_py", reason="Atari games need ale-py, which is not installed: pip install ale-py"
)


def games(name: str = "Breakout", *, count: int = 2, **keys: Any) -> AtariGames:
    return AtariGames(EnvConfig.model_validate({"id": f"ALE/{name}-v5", **keys}), count=count)


def emulator(game: str) -> Any:
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(ale_py.roms.get_rom_path(game))
    ale.reset_game()
    return ale


def shrunk(screen: Array, size: int = 84) -> Array:
    """Each pixel the mean of the area that it covers, pixel by pixel."""

    def shares(many: int) -> Array:
        edges = np.linspace(0, many, size + 1)
        covered = np.zeros((size, many))
        for row in range(size):
            for pixel in range(int(edges[row]), int(np.ceil(edges[row + 1]))):
                covered[row, pixel] = min(edges[row + 1], pixel + 1) - max(edges[row], pixel)
        share: Array = covered / covered.sum(1, keepdims=True)
        return share

    whole: Array = shares(screen.shape[0]) @ screen @ shares(screen.shape[1]).T
    return whole


def slow_frames(game: str, begun: int, actions: list[int]) -> Iterator[Array]:
    """What is seen before each action and after the last: frames before the start, then
    four per action.
    """
    ale = emulator(game)
    names = ale.getMinimalActionSet()
    fire = ale_py.Action.FIRE in names
    for frame in range(begun):
        ale.act(ale_py.Action.FIRE if fire and frame == 0 else ale_py.Action.NOOP)
    yield shrunk(ale.getScreenGrayscale())
    for action in actions:
        screens = []
        for _ in range(4):
            ale.act(names[action])
            screens.append(ale.getScreenGrayscale())
        yield shrunk(np.maximum(screens[2], screens[3]))


@pytest.mark.parametrize("name", ["Breakout", "Enduro", "Pong", "Qbert"])
def test_frames_are_those_of_the_paper_made_slowly(name: str) -> None:
    envs = games(name)
    obs, _ = envs.reset(seed=[3, 4])
    begun, game = int(envs.begun[1]), name.lower()
    assert 1 <= begun <= 31
    actions = np.random.default_rng(0).integers(envs.single_action_space.n, size=(40, 2))  # type: ignore[attr-defined]
    seen = [obs, *(envs.step(row)[0] for row in actions)]
    expected = [
        np.rint(frame) for frame in slow_frames(game, begun, [int(action) for _, action in actions])
    ]
    for frame in expected:
        for top, bottom, left, right in blanked(game, size=84):
            frame[top:bottom, left:right] = 0
    for step, stacks in enumerate(seen):
        stack = np.stack([expected[max(0, step - age)] for age in (3, 2, 1, 0)])
        # OpenCV rounds after each axis
        assert np.abs(stacks[1].astype(float) - stack).max() <= 1, f"step {step}"


def test_a_game_over_is_hidden_costs_a_penalty_and_the_stack_slides_over_it() -> None:
    envs = games(hide_termination=True, termination_penalty=2.0, max_episode_steps=10_000)
    before, _ = envs.reset(seed=[1, 2])
    score = np.zeros(2)
    for _ in range(1000):
        obs, reward, terminated, truncated, info = envs.step(np.array([1, 2]))
        score += info["score"]
        assert not terminated.any()
        assert not truncated.any()
        np.testing.assert_array_equal(obs[:, :-1], before[:, 1:])
        over = np.isfinite(info["game_score"])
        assert ((envs.begun > 0) == over).all()
        np.testing.assert_array_equal(reward, np.clip(info["score"], -1, 1) - 2.0 * over)
        np.testing.assert_array_equal(info["game_score"][over], score[over])
        score[over] = 0
        if over.any():
            return
        before = obs
    raise AssertionError("no game ended")


def test_a_game_over_that_is_shown_ends_the_episode_and_the_next_stack_begins_anew() -> None:
    envs, moves = games(), np.random.default_rng(0)
    envs.reset(seed=[1, 2])
    terminated = np.zeros(2, bool)
    while not terminated.any():
        _, _, terminated, _, _ = envs.step(moves.integers(4, size=2))
    ended = int(terminated.argmax())
    obs, reward, terminated, truncated, info = envs.step(moves.integers(4, size=2))
    assert reward[ended] == info["score"][ended] == 0
    assert not terminated[ended]
    assert not truncated[ended]
    assert 1 <= envs.begun[ended] <= 31
    assert (obs[ended] == obs[ended, 0]).all()
    assert (obs[1 - ended, 0] != obs[1 - ended, -1]).any()


def test_an_episode_is_as_long_as_its_limit_and_begins_a_new_game() -> None:
    envs = games("Pong", hide_termination=True, max_episode_steps=5)
    first, _ = envs.reset(seed=[1, 2])
    for step in range(1, 6):
        obs, _, _, truncated, _ = envs.step(np.array([2, 2]))
        assert truncated.all() == (step == 5)
    obs, reward, _, truncated, _ = envs.step(np.array([2, 2]))
    assert not truncated.any()
    assert (reward == 0).all()
    assert (obs == obs[:, :1]).all()
    assert first.shape == obs.shape == (2, 4, 84, 84)


def test_rewards_are_clipped_and_scores_are_not() -> None:
    envs = games("Qbert", hide_termination=True)
    envs.reset(seed=0)
    rng, paid = np.random.default_rng(0), []
    for _ in range(200):
        _, reward, _, _, info = envs.step(rng.integers(6, size=2))
        paid += list(info["score"])
        assert (np.abs(reward) <= 1).all()
    assert max(paid) >= 25


def test_each_environment_has_its_own_game_and_a_seed_repeats_it() -> None:
    def play(seeds: list[int]) -> Array:
        envs = games("Breakout", count=3)
        envs.reset(seed=seeds)
        return np.stack([envs.step(np.array([1, 2, 3]))[0] for _ in range(20)])

    first = play([5, 6, 7])
    np.testing.assert_array_equal(first, play([5, 6, 7]))
    assert not np.array_equal(first, play([8, 9, 10]))


@pytest.mark.parametrize(
    ("game", "digits"),
    [("beam_rider", (9, 10, 11)), ("pong", (13, 14)), ("seaquest", (56, 57, 58))],
)
def test_every_pixel_that_a_long_score_changes_is_blanked(
    game: str, digits: tuple[int, ...]
) -> None:
    def screen(score: int) -> Array:
        ale = emulator(game)
        for _ in range(300):
            ale.act(ale_py.Action.NOOP)
        for _ in range(4):
            for address in digits:
                ale.setRAM(address, score)
            ale.act(ale_py.Action.NOOP)
        return np.asarray(ale.getScreenGrayscale())

    changed = screen(0x11) != screen(0x88)
    assert changed.any()
    for top, bottom, left, right in SCORES[game]:
        changed[top:bottom, left:right] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"stack_num": 3}, r"env\.kwargs\.stack_num is decided elsewhere; set env\.atari\.stack"),
        ({"foo": 1}, "foo"),
    ],
)
def test_arguments_that_cannot_be_are_named(kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        games(kwargs=kwargs)


def test_the_program_s_own_doors_lead_to_the_same_game() -> None:
    config = EnvConfig(id="ALE/Pong-v5", hide_termination=True, max_episode_steps=50)
    facts = probe(config)
    assert (facts.episode_limit, facts.fps, facts.variable_length_possible) == (50, 15, False)
    env, envs = make_env(config), make_vector_env(config, num_envs=1, vectorize="sync")
    np.testing.assert_array_equal(env.reset(seed=3)[0], envs.reset(seed=3)[0][0])
    np.testing.assert_array_equal(env.step(2)[0], envs.step(np.array([2]))[0][0])
    raw = probe(EnvConfig(id="ALE/Pong-v5", kwargs={"obs_type": "ram"}, max_episode_steps=50))
    assert raw.spaces.obs.leaves[0].shape == (128,)
