"""Spaces as plain data: what comes out of a flattened observation is what went in."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from gymnasium.spaces.utils import flatten as gym_flatten
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhp.envs.spaces import ActionSpec, ObsSpec, Spaces, describe

BUTTON: gym.Space[Any] = Discrete(2)

BOXES = st.builds(
    lambda shape, dtype: Box(0, 1 if dtype is np.bool_ else 100, tuple(shape), dtype),
    st.lists(st.integers(1, 3), max_size=3),
    st.sampled_from(
        [np.float16, np.float32, np.float64, np.uint8, np.int16, np.int32, np.int64, np.bool_]
    ),
)
DISCRETES: st.SearchStrategy[gym.Space[Any]] = st.builds(
    lambda n, start: Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3)
)
SPACES = st.recursive(
    BOXES | DISCRETES,
    lambda inner: (
        st.dictionaries(st.text("abc0", min_size=1, max_size=3), inner, min_size=1, max_size=3).map(
            Dict
        )
        | st.lists(inner, min_size=1, max_size=3).map(Tuple)
    ),
    max_leaves=5,
)


def obs_spec(space: gym.Space[Any]) -> ObsSpec:
    return describe(space, BUTTON).obs


def leaves_of(space: gym.Space[Any], value: Any, path: str = "") -> dict[str, Any]:
    """The leaves of one observation by path, the slow way."""
    if isinstance(space, Dict):
        items = [(key, inner, value[key]) for key, inner in space.spaces.items()]
    elif isinstance(space, Tuple):
        items = [(str(index), inner, value[index]) for index, inner in enumerate(space.spaces)]
    else:
        return {path: np.asarray(value)}
    found: dict[str, Any] = {}
    for key, inner, part in items:
        found |= leaves_of(inner, part, f"{path}/{key}" if path else key)
    return found


@settings(max_examples=150, deadline=None, derandomize=True)
@given(space=SPACES, seed=st.integers(0, 2**31))
def test_an_observation_comes_back_whole_from_its_flat_row(
    space: gym.Space[Any], seed: int
) -> None:
    space.seed(seed)
    samples = [space.sample() for _ in range(3)]
    spec = obs_spec(space)
    rows = np.stack([spec.flatten_one(sample) for sample in samples])
    assert spec.flat_space().contains(rows[0])
    whole = [leaves_of(space, sample) for sample in samples]
    back = spec.unflatten(rows)
    assert list(back) == list(whole[0])
    for path, leaf in back.items():
        np.testing.assert_array_equal(leaf, [sample[path] for sample in whole])
        assert leaf.dtype == whole[0][path].dtype


@settings(max_examples=150, deadline=None, derandomize=True)
@given(space=SPACES, seed=st.integers(0, 2**31))
def test_leaves_flatten_like_single_observations_and_like_gymnasium_s(
    space: gym.Space[Any], seed: int
) -> None:
    space.seed(seed)
    samples = [space.sample() for _ in range(3)]
    spec = obs_spec(space)
    rows = np.stack([spec.flatten_one(sample) for sample in samples])
    flat = spec.flatten(spec.unflatten(rows))
    assert flat.shape == (3, spec.size)
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(flat, rows.astype(np.float32))
    expected = np.stack([np.asarray(gym_flatten(space, sample)) for sample in samples])
    np.testing.assert_array_equal(flat, expected.astype(np.float32))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(space=SPACES)
def test_a_spec_survives_json(space: gym.Space[Any]) -> None:
    for action in (BUTTON, MultiDiscrete([2, 5], start=[1, -1]), Box(-1, 1, (2, 3))):
        spaces = describe(space, action)
        assert Spaces.from_json(json.loads(json.dumps(spaces.to_json()))) == spaces


def test_a_one_dimensional_box_is_plain_and_nothing_else_is() -> None:
    assert obs_spec(Box(-1, 1, (3,))).plain
    others: list[gym.Space[Any]] = [
        Box(-1, 1, ()),
        Box(0, 1, (2, 2)),
        Discrete(4),
        Dict(x=Box(-1, 1, (3,)), y=BUTTON),
    ]
    assert not any(obs_spec(other).plain for other in others)


def test_the_flat_row_has_a_type_that_holds_every_leaf() -> None:
    assert obs_spec(Discrete(3)).flat_dtype == np.float32
    assert obs_spec(Box(0, 255, (2, 2), np.uint8)).flat_dtype == np.float32
    assert (
        obs_spec(Dict(a=Box(0, 1, (1,), np.float32), b=Box(0, 1, (1,), np.float64))).flat_dtype
        == np.float64
    )


def test_a_tuple_observation_may_come_as_a_list() -> None:
    spec = obs_spec(Tuple((Box(0, 9, (1,)), Discrete(2))))
    np.testing.assert_array_equal(spec.flatten_one([np.array([7.0]), 1]), [7, 0, 1])


def test_no_rows_are_no_rows() -> None:
    spec = obs_spec(Dict(a=Discrete(3), b=Box(0, 1, (2, 2))))
    back = spec.unflatten(np.zeros((0, 7), np.float32))
    assert (back["a"].shape, back["b"].shape) == ((0,), (0, 2, 2))
    assert spec.flatten(back).shape == (0, 7)


def test_what_comes_back_owns_its_numbers() -> None:
    spec = obs_spec(Box(0, 9, (2,)))
    rows = np.ones((1, 2), np.float32)
    back = spec.unflatten(rows)[""]
    rows[:] = 5
    assert back.tolist() == [[1, 1]]


@pytest.mark.parametrize("value", [-2, 2])
def test_a_discrete_value_outside_its_space_is_refused_rather_than_counted_from_the_end(
    value: int,
) -> None:
    with pytest.raises(
        ValueError, match=f"the observation at 'mode' is a whole number from -1 to 1, got {value}"
    ):
        obs_spec(Dict(mode=Discrete(3, start=-1))).flatten_one({"mode": value})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            Text(3),
            r"an observation is a Box, a Discrete, or a Dict or Tuple of those; "
            r"got Text.*Wrap the environment",
        ),
        (Dict(a=Tuple((MultiBinary(2),))), r"got MultiBinary\(2\) at 'a/0'"),
        (
            Dict({"a/b": BUTTON}),
            "the keys of a Dict observation are texts without '/' and not empty, got 'a/b'",
        ),
        (Dict({"": BUTTON}), "not empty, got ''; rename it"),
        (Dict({}), "an observation holds at least one number"),
        (Box(0, 1, (0,)), "an observation holds at least one number"),
    ],
)
def test_an_unsupported_observation_is_named_with_its_place(
    space: gym.Space[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        describe(space, BUTTON)


# Actions


def action_spec(space: gym.Space[Any]) -> ActionSpec:
    return describe(Box(0, 1, (1,)), space).action


def test_actions_are_encoded_as_numbers_or_one_hot() -> None:
    box = action_spec(Box(-2, 2, (1, 2), np.float64))
    np.testing.assert_array_equal(
        box.encode(np.array([[[0.5, -2]]])), np.array([[0.5, -2]], np.float32)
    )
    discrete = action_spec(Discrete(3, start=5))
    np.testing.assert_array_equal(discrete.encode(np.array([5, 7])), [[1, 0, 0], [0, 0, 1]])
    buttons = action_spec(MultiDiscrete([2, 3], start=[0, -1]))
    np.testing.assert_array_equal(
        buttons.encode(np.array([[1, -1], [0, 1]])), [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    )
    for spec in (box, discrete, buttons):
        assert spec.encode(np.zeros((0, *spec.shape), spec.dtype)).shape == (0, spec.size)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    space=st.one_of(
        DISCRETES,
        st.lists(st.integers(1, 4), min_size=1, max_size=3).map(
            lambda counts: MultiDiscrete(counts)
        ),
    ),
    seed=st.integers(0, 2**31),
)
def test_every_discrete_action_has_a_one_hot_of_its_own(space: gym.Space[Any], seed: int) -> None:
    space.seed(seed)
    actions = np.stack([space.sample() for _ in range(20)])
    encoded = action_spec(space).encode(actions)
    assert (encoded.sum(1) == (1 if actions.ndim == 1 else actions.shape[1])).all()
    same_action = (actions.reshape(20, 1, -1) == actions.reshape(1, 20, -1)).all(-1)
    same_code = (encoded[:, None] == encoded[None]).all(-1)
    np.testing.assert_array_equal(same_action, same_code)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Box(-np.inf, 1, (2,)), r"a Box of actions needs finite bounds.*RescaleAction"),
        (Box(-3e38, 3e38, (2,)), r"a Box of actions needs finite bounds, at most 1e\+18"),
        (Box(0, 1e300, (2,), np.float64), r"a Box of actions needs finite bounds, at most 1e\+18"),
        (Box(0, 1, (0,)), "an action holds at least one number and at most 10,000,000"),
        (Discrete(10**12), "an action holds at least one number and at most 10,000,000"),
        (Text(3), "an action is a Box, a Discrete or a one-dimensional MultiDiscrete; got Text"),
        (
            MultiDiscrete(np.array([[2, 2]])),
            "an action is a Box, a Discrete or a one-dimensional MultiDiscrete",
        ),
        (MultiBinary(3), r"got MultiBinary\(3\).*Wrap the environment"),
    ],
)
def test_an_unsupported_action_is_named(space: gym.Space[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe(Box(0, 1, (1,)), space)
