"""What an environment raises or returns: taken where it can be meant, told in one line
where it cannot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RescaleAction, TimeLimit, TransformObservation

from rlhp.config.schema import EnvConfig
from rlhp.envs import guard
from rlhp.envs.guard import EnvFailed, GuardedVector
from rlhp.envs.make import (
    UNSTATED_LIMIT,
    make_env,
    make_vector_env,
    playback_fps,
    probe,
    variable_length_warning,
)
from rlhp.envs.states import states_of
from rlhp.labeling.clips.views import check_drawable
from rlhp.rollout.episode_replay import CannotRestore, EpisodeReplay
from tests.envs.example_envs import Countdown, Step

HERE = "tests.envs.test_guard:"
Change = Callable[[Any], Any]

CHANGED: dict[str, tuple[int, Change]] = {
    "longer": (0, lambda obs: np.append(obs, obs)),
    "column": (0, lambda obs: obs[:, None]),
    "words": (0, lambda obs: "left"),
    "nan": (0, lambda obs: obs * np.nan),
    "listed": (0, list),
    "double": (0, lambda obs: obs.astype(np.float64)),
    "beyond": (0, lambda obs: obs + 1000),
    "no reward": (1, lambda reward: None),
    "two rewards": (1, lambda reward: np.ones(2)),
    "endless reward": (1, lambda reward: float("inf")),
    "reward in an array": (1, lambda reward: np.ones(1, np.float32)),
    "two flags": (2, lambda flag: np.array([flag, flag])),
    "flag of words": (3, lambda flag: "no"),
    "flag as a number": (3, int),
    "info of words": (4, lambda info: "fine"),
    "any info": (4, lambda info: {"score": "high", "game_score": None, 3: object()}),
}


class Changed(Countdown):
    """Returns one of its values changed, from a step on."""

    def __init__(self, *, what: str, after: int = 0) -> None:
        super().__init__(steps=90)
        self._what, self._after, self._taken = what, after, 0

    def step(self, action: Any) -> Step:
        self._taken += 1
        values: list[Any] = list(super().step(action))
        if self._taken > self._after:
            index, change = CHANGED[self._what]
            values[index] = change(values[index])
        return tuple(values)


class Fails(Countdown):
    """Raises in one of its calls."""

    def __init__(
        self, *, call: str, kind: str = "RuntimeError", render_mode: str | None = None
    ) -> None:
        super().__init__(steps=10**6)
        self._call, self._kind, self.render_mode = call, kind, render_mode
        self._fail("make")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self._fail("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Step:
        self._fail("step")
        return super().step(action)

    def close(self) -> None:
        self._fail("close")

    def _fail(self, call: str) -> None:
        kinds = {
            "RuntimeError": RuntimeError,
            "SystemExit": SystemExit,
            "KeyboardInterrupt": KeyboardInterrupt,
        }
        if call == self._call:
            raise kinds[self._kind]("the motor\nis unplugged")


class OldApi(Countdown):
    """As environments were before Gymnasium."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed)[0]


class OwnGenerator(Countdown):
    """Puts a generator of another kind in the place of Gymnasium's."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self.np_random: Any = np.random.RandomState(seed)
        self.left = self.steps
        return self.show(), {}


class Draws(Countdown):
    """Draws a picture of some kind."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(
        self, *, shape: list[int] | None, dtype: str = "uint8", render_mode: str | None = None
    ) -> None:
        super().__init__()
        self._shape, self._dtype, self.render_mode = shape, dtype, render_mode

    def render(self) -> Any:
        return None if self._shape is None else np.full(self._shape, 7, self._dtype)


def config(name: str, *, limit: int | None = 20, **kwargs: Any) -> EnvConfig:
    return EnvConfig(id=HERE + name, kwargs=kwargs, max_episode_steps=limit)


def refusal(tried: EnvConfig) -> str:
    """What the trial says, in one line that names the environment."""
    with pytest.raises(EnvFailed) as caught:
        probe(tried)
    text = str(caught.value)
    assert text.startswith(f"env.id={tried.id!r}")
    assert "\n" not in text
    return text


# What is returned


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("longer", "step: the observation: expected shape (1,), got (2,)"),
        ("column", "step: the observation: expected shape (1,), got (1, 1)"),
        ("words", "step: the observation: expected numbers of shape (1,), got 'left'"),
        ("nan", "step: the observation: expected finite numbers, got nan"),
        ("no reward", "step: reward: expected one number, got None"),
        (
            "two rewards",
            "step: reward: expected one number, got an array of shape (2,) and dtype float64",
        ),
        (
            "endless reward",
            "step: reward: expected a finite number, at most 1e+12 either way, got inf",
        ),
        (
            "two flags",
            "step: terminated: expected True or False, got an array of shape (2,) and dtype bool",
        ),
        ("flag of words", "step: truncated: expected True or False, got 'no'"),
        (
            "info of words",
            "step: returns five values (obs, reward, terminated, truncated, info), info a dict; "
            "got",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_key_expected_and_got(what: str, said: str) -> None:
    text = refusal(config("Changed", what=what, after=2))
    assert said in text
    assert "step 3 of episode 1, seed 0" in text, "and where it was"


@pytest.mark.parametrize(
    "what", ["listed", "double", "reward in an array", "flag as a number", "any info"]
)
def test_what_can_be_meant_is_taken(what: str) -> None:
    assert probe(config("Changed", what=what)).warnings == ()
    vector: Any = make_vector_env(config("Changed", what=what), num_envs=2, vectorize="sync")
    vector.reset(seed=[1, 2])
    obs, rewards, terminated, truncated, info = vector.step(np.zeros(2, np.int64))
    assert (obs.dtype, obs.shape, rewards.tolist()) == (np.float32, (2, 1), [1, 1])
    assert (terminated.tolist(), truncated.tolist(), info) == ([False, False], [False, False], {})


def test_observations_out_of_their_bounds_are_a_warning() -> None:
    (warning,) = probe(config("Changed", what="beyond")).warnings
    assert "above its bound 100" in warning


def test_a_part_of_an_observation_is_named_by_its_path() -> None:
    space = gym.spaces.Dict(
        {"pose": gym.spaces.Tuple((gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3, start=1)))}
    )
    take = guard.obs_taker(space)
    assert take({"pose": ([0, 1], np.array([2])), "more": None})["pose"][1] == 2
    for obs, said in (
        ({"pose": (np.zeros(3), 1)}, r"at 'pose/0': expected shape \(2,\), got \(3,\)"),
        ({"pose": (np.zeros(2), 4)}, "at 'pose/1': expected a whole number from 1 to 3, got 4"),
        ({"pose": (np.zeros(2),)}, "at 'pose': expected a tuple of 2, got a tuple of 1"),
        ({"place": 1}, "expected the keys pose, got the keys place"),
    ):
        with pytest.raises(guard.Unfit, match=said):
            take(obs)


def test_whole_numbers_fit_into_bytes_where_they_do() -> None:
    take = guard.obs_taker(gym.spaces.Box(0, 255, (2,), np.uint8))
    assert take([0, 255]).dtype == np.uint8
    for bad in ([0, 256], [-1, 0], [0.5, 1]):
        with pytest.raises(guard.Unfit, match="expected uint8, got"):
            take(bad)


def test_an_environment_of_before_gymnasium_says_what_reset_returns() -> None:
    assert "reset: returns two values (obs, info), info a dict; got an array" in refusal(
        config("OldApi")
    )


# What is raised


@pytest.mark.parametrize("kind", ["RuntimeError", "SystemExit"])
@pytest.mark.parametrize("call", ["make", "reset", "step"])
def test_what_is_raised_is_told_with_the_call_and_its_first_line(call: str, kind: str) -> None:
    tried = config("Fails", call=call, kind=kind)
    text = refusal(tried)
    assert f"{kind}: the motor" in text
    assert call == "make" or f"{call} failed with" in text
    with pytest.raises(EnvFailed) as caught:
        probe(tried)
    assert type(caught.value.__cause__).__name__ == kind, "for the traceback in the log"


def test_ctrl_c_is_nobody_s_mistake() -> None:
    with pytest.raises(KeyboardInterrupt):
        probe(config("Fails", call="step", kind="KeyboardInterrupt"))


def test_a_failure_to_close_is_said_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert probe(config("Fails", call="close")).episode_limit == 20
    assert "close failed with RuntimeError: the motor" in caplog.text


def test_a_vector_of_environments_says_which_of_them_failed() -> None:
    vector: Any = make_vector_env(
        config("Changed", what="nan", after=3), num_envs=2, vectorize="sync", who="a test"
    )
    vector.reset(seed=[7, 8])
    for _ in range(3):
        vector.step(np.zeros(2, np.int64))
    with pytest.raises(EnvFailed, match=r"\(a test, environment 0, step 4 of episode 1, seed 7\)"):
        vector.step(np.zeros(2, np.int64))


class Spoiled(gym.vector.VectorEnv[Any, Any, Any]):
    """A vector implementation of somebody's own, whose rewards are spoiled."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, **_: Any) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = (
            Countdown.observation_space,
            Countdown.action_space,
        )
        self.paid: Any = np.ones(num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.ones((self.num_envs, 1), np.float32), {"score": 1}

    def step(self, actions: Any) -> Any:
        no = np.zeros(self.num_envs, bool)
        return np.ones((self.num_envs, 1), np.float32), self.paid, no, no, {"score": 1}


@pytest.mark.parametrize(
    ("paid", "said"), [([1, np.nan], "got nan"), ([1], r"reward: expected one for each of 2")]
)
def test_vector_implementations_are_guarded_too(paid: list[float], said: str) -> None:
    own = Spoiled(2)
    envs: Any = GuardedVector(own, EnvConfig(id="somebody:Own"), who="a test")
    assert envs.reset(seed=[1, 2])[1] == {}
    assert envs.step(np.zeros(2))[4] == {}
    own.paid = np.array(paid)
    with pytest.raises(EnvFailed, match=f"env.id='somebody:Own': step: .*{said}.*a test, step 2"):
        envs.step(np.zeros(2))


# Time limits


def inside(limit: int = 4) -> gym.Env[Any, Any]:
    """A time limit below two wrappers."""
    limited: gym.Env[Any, Any] = TimeLimit(Countdown(steps=1000), max_episode_steps=limit)
    return TransformObservation(
        TransformObservation(limited, lambda obs: obs, None), lambda obs: obs, None
    )


def rescaled_pendulum() -> gym.Env[Any, Any]:
    """Gymnasium's own limit of 200, below a wrapper."""
    return RescaleAction(gym.make("Pendulum-v1"), np.float32(-1), np.float32(1))


@pytest.mark.parametrize("name", ["inside", "rescaled_pendulum"])
@pytest.mark.parametrize("limit", [None, 2, 250])
def test_the_limit_of_the_config_wins_over_one_below_other_wrappers(
    name: str, limit: int | None
) -> None:
    expected = limit or {"inside": 4, "rescaled_pendulum": 200}[name]
    tried = config(name, limit=limit)
    assert probe(tried).episode_limit == expected
    env = make_env(tried)
    env.reset(seed=0)
    env.action_space.seed(0)
    ends = [env.step(env.action_space.sample())[3] for _ in range(expected)]
    assert ends == [False] * (expected - 1) + [True]


def test_an_environment_that_ends_itself_needs_no_limit_and_is_warned_about() -> None:
    facts = probe(EnvConfig(id="tests.envs.example_envs:Countdown", kwargs={"steps": 7}))
    assert facts.episode_limit == UNSTATED_LIMIT
    (warning,) = facts.warnings
    assert "states no time limit" in warning
    assert "after 7 steps each" in warning
    assert "env.max_episode_steps" in warning
    advice = variable_length_warning(facts)
    assert advice is not None
    assert f"{UNSTATED_LIMIT}" not in advice, "no episode has this length"
    assert "Set env.max_episode_steps to their length and env.hide_termination = true" in advice


# Drawing


@pytest.mark.parametrize("shape", [[8, 9, 3], [8, 9, 4], [8, 9, 1], [8, 9]])
@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_pictures_with_alpha_or_in_gray_become_rgb(shape: list[int], dtype: str) -> None:
    tried = config("Draws", shape=shape, dtype=dtype)
    assert check_drawable(tried) == "picture"
    drawing = make_env(tried, render_mode="rgb_array")
    drawing.reset(seed=0)
    frame: Any = drawing.render()
    assert (frame.shape, frame.dtype, frame.max()) == ((8, 9, 3), np.uint8, 7)


@pytest.mark.parametrize(
    ("shape", "dtype", "got"),
    [
        (None, "uint8", "got None"),
        ([8, 9, 3], "float64", "got float64 from 7.0 to 7.0"),
        ([3, 8, 9], "uint8", r"got shape (3, 8, 9)"),
        ([2, 8, 9, 3], "uint8", "got an array of shape (2, 8, 9, 3)"),
        ([0, 9, 3], "uint8", "got an array of shape (0, 9, 3)"),
    ],
)
def test_what_is_no_picture_is_refused_before_the_start(
    shape: list[int] | None, dtype: str, got: str
) -> None:
    tried = config("Draws", shape=shape, dtype=dtype)
    with pytest.raises(EnvFailed) as caught:
        check_drawable(tried)
    assert f"env.id={tried.id!r}: render: expected a picture [H, W, 3]" in str(caught.value)
    assert got in str(caught.value)


@pytest.mark.parametrize(
    ("said", "fps"),
    [(None, 30), (7, 7), (0, 30), (-3, 30), ("fast", 30), (float("nan"), 30), (1e9, 30)],
)
def test_an_odd_speed_of_playback_is_a_warning(
    said: Any, fps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Draws, "metadata", {"render_modes": ["rgb_array"], "render_fps": said})
    tried = config("Draws", shape=[8, 9, 3])
    facts = probe(tried)
    assert facts.fps == playback_fps(tried, make_env(tried)) == (7 if said == 7 else 30)
    assert bool(facts.warnings) == (said not in (None, 7))


# Being brought back


class InPlace(Countdown):
    """Scales and clips the actions it is given where they lie."""

    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def step(self, action: Any) -> Step:
        action *= 50
        return super().step(action)


def test_an_environment_that_changes_its_action_changes_nothing_that_is_kept() -> None:
    envs: Any = make_vector_env(EnvConfig(id=HERE + "InPlace"), num_envs=2, vectorize="auto")
    envs.reset(seed=[1, 2])
    actions = np.full((2, 2), 0.5, np.float32)
    envs.step(actions)
    assert actions.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    envs.close()


class Tells(Countdown):
    """Says its state in as many numbers as `sizes` has it from step to step; of a
    negative number it knows none.
    """

    def __init__(self, *, sizes: list[int]) -> None:
        super().__init__(steps=9)
        self._sizes = sizes

    def rlhp_state(self) -> list[float]:
        tried = self.np_random_seed in (None, 0)  # as before the start
        size = self._sizes[0 if tried else min(self.steps - self.left, len(self._sizes) - 1)]
        if size < 0:
            raise RuntimeError("the simulator is silent")
        return [0.0] * size


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([2, -1], "rlhp_state failed with RuntimeError: the simulator is silent"),
        ([2, 3], "always 2 of them; got shape"),
    ],
)
def test_a_state_that_cannot_be_read_is_the_environment_s(sizes: list[int], said: str) -> None:
    config = EnvConfig(id=HERE + "Tells", kwargs={"sizes": sizes})
    probe(config)
    envs: Any = make_vector_env(config, num_envs=2, vectorize="auto", who="env runner 4")
    kind, read = states_of(envs, draws_clips=False)
    assert kind == "hook"
    assert read is not None
    envs.reset(seed=[1, 2])
    assert read().shape == (2, 2)
    envs.step(np.zeros(2, np.int64))
    with pytest.raises(
        EnvFailed, match=rf"Tells.*{said}.*env runner 4, environment 0, step 1 of episode 1, seed 1"
    ):
        read()
    envs.close()
    with pytest.raises(EnvFailed, match="the simulator is silent"):
        probe(EnvConfig(id=HERE + "Tells", kwargs={"sizes": [-1]}))


def test_a_generator_of_its_own_rules_out_an_exact_resume_and_nothing_else() -> None:
    vector: Any = make_vector_env(config("OwnGenerator"), num_envs=2, vectorize="sync")
    tape = EpisodeReplay(vector)
    vector.reset(seed=[1, 2])
    tape.begin([1, 2])
    for _ in range(5):
        _, _, terminated, truncated, _ = vector.step(np.zeros(2, np.int64))
        tape.record(np.zeros(2, np.int64), terminated | truncated)
    with pytest.raises(CannotRestore, match="OwnGenerator draws from a generator of its own"):
        tape.state()
