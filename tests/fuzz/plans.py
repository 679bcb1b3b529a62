"""Plans for strange environments, drawn by hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.fuzz.strange_envs import INFOS, ODD, RAISED, Plan

Spaces = st.SearchStrategy[list[Any]]
CALLS = ("make", "reset", "step", "render", "close")
WHAT = {
    "reset": ("obs", "info", "fewer", "bare"),
    "step": ("obs", "reward", "terminated", "truncated", "info", "fewer", "bare"),
    "render": ("frame",),
}
SHAPES = st.lists(st.integers(1, 4), max_size=3)


def boxes(dtypes: tuple[str, ...], shapes: st.SearchStrategy[list[int]] = SHAPES) -> Spaces:
    """Boxes with bounds that their dtype holds."""
    bounds = {"uint8": (0, 255), "int64": (-9, 9), "bool": (0, 1), "float16": (-2, 2)}
    return st.builds(
        lambda shape, dtype: ["box", shape, dtype, *bounds.get(dtype, (-3, 3))],
        shapes,
        st.sampled_from(dtypes),
    )


DISCRETE: Spaces = st.builds(
    lambda n, start: ["discrete", n, start], st.integers(1, 5), st.integers(-2, 2)
)
OBS_LEAVES: Spaces = boxes(("float32", "float64", "float16", "uint8", "int64", "bool")) | DISCRETE
GOOD_OBS: Spaces = st.one_of(
    OBS_LEAVES,
    st.just(["box", [2, 16, 16], "uint8", 0, 255]),
    st.lists(
        st.tuples(st.sampled_from("abc"), OBS_LEAVES).map(list),
        min_size=1,
        max_size=3,
        unique_by=lambda p: p[0],
    ).map(lambda parts: ["dict", parts]),
    st.lists(OBS_LEAVES, min_size=1, max_size=3).map(lambda parts: ["tuple", parts]),
)
GOOD_ACTIONS: Spaces = st.one_of(
    boxes(("float32", "float64"), st.lists(st.integers(1, 3), min_size=1, max_size=1)),
    DISCRETE,
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(lambda sizes: ["multidiscrete", sizes]),
)
BAD: Spaces = st.one_of(
    st.just(["missing"]),
    st.sampled_from(["none", "word", "class", "graph"]).map(lambda kind: [kind]),
    st.integers(1, 4).map(lambda size: ["multibinary", size]),
    st.integers(1, 4).map(lambda size: ["text", size]),
    OBS_LEAVES.map(lambda part: ["sequence", part]),
    st.just(["dict", []]),
    st.just(["tuple", []]),
    st.just(["dict", [["a/b", ["discrete", 2, 0]]]]),
    st.just(["box", [0], "float32", -1, 1]),
    st.just(["box", [2], "float32", float("-inf"), float("inf")]),
    st.just(["box", [2], "float32", -3.4e38, 3.4e38]),
    st.just(["box", [2, 2], "int64", -3, 3]),
    st.just(["discrete", 2**50, 0]),
    st.just(["multidiscrete", [[2, 2], [2, 2]]]),
    st.just(["dict", [["a", ["tuple", [["discrete", 2, 0], ["text", 3]]]]]]),
)
METADATA: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        [],
        "rgb_array",
        {"render_modes": None},
        {"render_modes": 3},
        {"render_modes": ["rgb_array"]},
        {"render_modes": ["rgb_array"], "render_fps": float("nan")},
        {"render_fps": "fast"},
        {"render_fps": 0},
        {"render_fps": -5},
        {"render_fps": 1e9},
        {"render_fps": None},
        {"render_fps": [30]},
    ]
)


@st.composite
def plans(draw: st.DrawFn, *, late: bool) -> Plan:
    """Of any environment; with `late`, of one that passes a trial and may go wrong
    after it.
    """
    first = 8 if late else 1
    bad = (
        "neither"
        if late
        else draw(st.sampled_from(["neither", "neither", "neither", "neither", "obs", "action"]))
    )
    plan: Plan = {
        "obs": draw(BAD if bad == "obs" else GOOD_OBS),
        "action": draw(BAD if bad == "action" else GOOD_ACTIONS),
        "length": draw(st.sampled_from([1, 2, 7, 13, None])),
        "ends": draw(st.sampled_from(["terminated", "truncated", "both"])),
        "info": draw(st.sampled_from(sorted(INFOS))),
    }
    if draw(st.booleans()):
        calls = ("reset", "step", "close") if late else CALLS
        at = st.integers(first, 200 if late else 9)
        plan["fault"] = {
            "call": draw(st.sampled_from(calls)),
            "at": draw(at),
            "raises": draw(st.sampled_from(sorted(RAISED))),
        }
    elif draw(st.booleans()):
        call = draw(st.sampled_from(("reset", "step") if late else tuple(WHAT)))
        plan["odd"] = {
            "call": call, "at": draw(st.integers(first, 200 if late else 9)),
            "what": draw(st.sampled_from(WHAT[call])), "value": draw(st.sampled_from(sorted(ODD))),
        }  # fmt: skip
    if draw(st.booleans()):
        plan["generator"] = draw(st.sampled_from(["old", "none"]))
    if draw(st.booleans()):
        plan["metadata"] = draw(METADATA)
    if draw(st.integers(0, 9)) == 0:
        plan["pays"] = draw(st.sampled_from([0.0, 1e-30, 9e11, 3e38]))
    return plan


LIMITS = st.fixed_dictionaries(
    {},
    optional={"max_episode_steps": st.sampled_from([1, 6, 20]), "hide_termination": st.booleans()},
)
"""Other keys of `env`."""
