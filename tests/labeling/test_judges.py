"""Scripted judges answer from recorded simulator states alone, as a person who watches
the clip would.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlhp.config.loading import load
from rlhp.config.schema import EnvConfig, TeacherConfig
from rlhp.envs.make import make_env
from rlhp.envs.states import sim_state, state_kind
from rlhp.labeling.judges import BackflipJudge, Judge, OneLegJudge
from rlhp.labeling.teachers import make_teacher
from rlhp.types import Answer, Array, Query, Segment, decode, encode

pytest.importorskip(
    "mujoco", reason="the judges look at bodies with mujoco, which is not installed"
)

CONFIGS = Path(__file__).parents[2] / "configs"
STEPS = 60
WIDTH = {"Hopper-v5": 13, "HalfCheetah-v5": 19}


@pytest.fixture(scope="module")
def flips() -> BackflipJudge:
    return BackflipJudge()


@pytest.fixture(scope="module")
def one_leg() -> OneLegJudge:
    return OneLegJudge()


def clip(qpos: Array, *, name: str, env_id: str = "Hopper-v5") -> Segment:
    state = np.zeros((len(qpos), WIDTH[env_id]))
    state[:, : qpos.shape[1]] = qpos
    return of_states(state, name=name)


def of_states(
    state: Array | None, *, name: str, kind: str = "mujoco", steps: int = STEPS
) -> Segment:
    length = steps if state is None else len(state)
    return Segment(
        id=name,
        run="test",
        env_runner=0,
        episode="e",
        start=0,
        obs={"": np.zeros((length + 1, 1), np.float32)},
        actions=np.zeros((length, 1), np.float32),
        env_reward=None,
        predicted_reward=None,
        reward_version=None,
        policy_version=0,
        env_steps=0,
        terminated=False,
        truncated=False,
        state=state,
        state_kind="none" if state is None else kind,
    )


def hopper(
    *, height: float | Array = 1.25, pitch: float | Array = 0.0, steps: int = STEPS
) -> Array:
    """[K, 6] a stretched hopper whose torso's joint is at this height and pitch."""
    qpos = np.zeros((steps, 6))
    qpos[:, 1], qpos[:, 2] = height, pitch
    return qpos


def tucked(pitch: float | Array) -> Array:
    """A hopper with its leg drawn in, so that the foot is not always the first to touch
    the floor.
    """
    qpos = hopper(pitch=pitch)
    qpos[:, 3:5] = -2.4
    return qpos


def turning(turns: float, *, height: float = 3.0) -> Array:
    """A hopper that turns backward so many times, out of reach of the floor."""
    return hopper(height=height, pitch=np.linspace(0, -2 * np.pi * turns, STEPS))


def on_the_floor(judge: Judge, qpos: Array) -> Array:
    """The same poses, each raised or lowered until its lowest part touches the floor."""
    lowered = qpos.copy()
    lowered[:, 1] -= judge.body.clearance(qpos).min(axis=1)
    return lowered


def prefers(judge: Judge, first: Segment, second: Segment) -> Answer:
    """The answer, which must be mirrored when the two change places."""
    answer = judge.answer(Query(id="q", candidates=(first, second)))
    mirrored = judge.answer(Query(id="q", candidates=(second, first)))
    assert (
        mirrored
        is {Answer.FIRST: Answer.SECOND, Answer.SECOND: Answer.FIRST, Answer.TIE: Answer.TIE}[
            answer
        ]
    )
    return answer


def test_a_negative_pitch_leans_the_hopper_away_from_where_it_runs() -> None:
    env = make_env(EnvConfig(id="Hopper-v5", hide_termination=True))
    env.reset(seed=0)
    sim = env.unwrapped
    qpos = np.zeros(6)
    qpos[1:3] = 1.25, -0.5
    sim.set_state(qpos, np.zeros(6))  # type: ignore[attr-defined]
    head = sim.data.body("torso").xmat.reshape(3, 3)[:, 2]  # type: ignore[attr-defined]
    assert head[0] < -0.4  # forward is +x
    env.close()  # type: ignore[no-untyped-call]


def test_the_pitch_of_a_hopper_is_neither_wrapped_nor_stopped_where_its_end_is_hidden() -> None:
    env = make_env(EnvConfig(id="Hopper-v5", hide_termination=True))
    env.reset(seed=0)
    qpos, qvel = np.zeros(6), np.zeros(6)
    qpos[1], qvel[2] = 30.0, -20.0
    env.unwrapped.set_state(qpos, qvel)  # type: ignore[attr-defined]
    for _ in range(100):
        _, _, terminated, truncated, _ = env.step(np.zeros(3, np.float32))
        assert not terminated
        assert not truncated
    state = sim_state(env)
    assert state is not None
    assert state[2] < -2 * np.pi
    env.close()  # type: ignore[no-untyped-call]


def test_turning_backward_is_preferred_to_standing_and_standing_to_turning_forward(
    flips: BackflipJudge,
) -> None:
    backward, forward = (clip(turning(turns), name=f"{turns}") for turns in (0.7, -0.7))
    standing = clip(hopper(), name="standing")
    assert prefers(flips, backward, standing) is Answer.FIRST
    assert prefers(flips, standing, forward) is Answer.FIRST


def test_more_of_a_turn_is_more(flips: BackflipJudge) -> None:
    scores = [flips.score(clip(turning(turns), name="s")) for turns in (0, 0.2, 0.5, 1, 2)]
    assert scores == sorted(scores)
    assert scores[-1] - scores[0] == pytest.approx(2)


def test_a_flip_is_preferred_to_a_faster_roll_on_the_ground(flips: BackflipJudge) -> None:
    roll = on_the_floor(flips, tucked(np.linspace(-np.pi / 2, -np.pi / 2 - 2 * np.pi, STEPS)))
    assert flips.watch(roll).fallen.mean() > 0.5
    assert flips.watch(roll).turns.sum() > 0.9
    assert prefers(flips, clip(turning(0.6), name="flip"), clip(roll, name="roll")) is Answer.FIRST


def test_jumping_is_preferred_to_standing_and_standing_to_lying(flips: BackflipJudge) -> None:
    standing = clip(on_the_floor(flips, hopper()), name="standing")
    lying = clip(on_the_floor(flips, tucked(-np.pi / 2)), name="lying")
    jumping = clip(hopper(height=1.25 + np.linspace(0, 0.5, STEPS)), name="jumping")
    assert prefers(flips, jumping, standing) is Answer.FIRST
    assert prefers(flips, standing, lying) is Answer.FIRST


@pytest.mark.parametrize(("over", "landings"), [(0.0, 1), (0.05, 1), (0.25, 0)])
def test_a_landing_counts_when_it_is_upright(
    flips: BackflipJudge, over: float, landings: int
) -> None:
    half = STEPS // 2
    flight = np.linspace(-np.pi, -2 * np.pi, half)
    pitch = np.concatenate((flight, np.full(STEPS - half, -2 * np.pi))) - over * 2 * np.pi
    qpos = on_the_floor(flips, hopper(pitch=pitch))
    qpos[:half, 1] += 1
    seen = flips.watch(qpos)
    assert seen.landings.sum() == landings


def test_coming_down_without_having_turned_is_no_landing(flips: BackflipJudge) -> None:
    qpos = on_the_floor(flips, hopper())
    qpos[: STEPS // 2, 1] += 1
    assert flips.watch(qpos).airborne.sum() == STEPS // 2
    assert not flips.watch(qpos).landings.any()


def test_two_segments_that_look_alike_are_a_tie(flips: BackflipJudge) -> None:
    assert (
        prefers(flips, clip(turning(0.5), name="a"), clip(turning(0.505), name="b")) is Answer.TIE
    )


def cheetah(*, speed: float, pitch: float, height: float = 0.0, steps: int = 30) -> Array:
    """[K, 9] a stiff cheetah that moves forward at this speed, in metres per step."""
    qpos = np.zeros((steps, 9))
    qpos[:, 0], qpos[:, 1], qpos[:, 2] = speed * np.arange(steps), height, pitch
    return qpos


def standing_on_hind_leg(speed: float, judge: OneLegJudge, *, pitch: float = -0.9) -> Array:
    """Reared up, with the hind leg alone on the floor."""
    return on_the_floor(judge, cheetah(speed=speed, pitch=pitch))


def test_a_cheetah_on_its_hind_leg_is_preferred_to_one_on_both_however_fast(
    one_leg: OneLegJudge,
) -> None:
    reared = standing_on_hind_leg(0.0, one_leg)
    both = cheetah(speed=0.3, pitch=0.0, height=-0.3)
    assert one_leg.watch(reared).standing.all()
    assert not one_leg.watch(both).standing.any()
    env_id = one_leg.env_id
    assert (
        prefers(one_leg, clip(reared, name="a", env_id=env_id), clip(both, name="b", env_id=env_id))
        is Answer.FIRST
    )


def test_of_two_cheetahs_on_their_hind_legs_the_faster_is_preferred(one_leg: OneLegJudge) -> None:
    speeds = (-0.1, 0.0, 0.1, 0.2)
    clips = [
        clip(standing_on_hind_leg(speed, one_leg), name="s", env_id=one_leg.env_id)
        for speed in speeds
    ]
    scores = [one_leg.score(each) for each in clips]
    assert scores == sorted(scores)
    assert scores[0] >= 0


def test_a_cheetah_on_its_back_stands_on_no_leg(one_leg: OneLegJudge) -> None:
    seen = one_leg.watch(on_the_floor(one_leg, cheetah(speed=0.2, pitch=np.pi)))
    assert not seen.standing.any()
    assert not seen.lifted.any()


def test_the_clearance_of_a_body_is_what_the_simulator_takes_for_contact(
    flips: BackflipJudge,
) -> None:
    env = make_env(EnvConfig(id="Hopper-v5", hide_termination=True))
    env.action_space.seed(0)
    env.reset(seed=0)
    sim = env.unwrapped
    for _ in range(300):
        env.step(env.action_space.sample())
        state = sim_state(env)
        assert state is not None
        clear = flips.body.clearance(state[None, :6])[0]
        sim.set_state(state[:6], state[6:12])  # type: ignore[attr-defined]  # brings contacts up to these positions
        contact = sim.data.contact  # type: ignore[attr-defined]
        down = {
            int(max(pair)): float(gap)
            for pair, gap in zip(contact.geom, contact.dist, strict=True)
            if 0 in pair
        }
        for geom, gap in down.items():
            assert clear[geom - 1] <= gap + 1e-9
        assert all(clear[geom - 1] > 0 for geom in range(1, 5) if geom not in down)
    env.close()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "segment",
    [
        of_states(None, name="blind"),
        of_states(np.zeros((STEPS, 19)), name="cheetah"),
        of_states(np.zeros((STEPS, 13)), name="own", kind="hook"),
    ],
    ids=lambda segment: segment.id,
)
def test_a_segment_without_the_states_it_reads_is_refused_in_words(
    flips: BackflipJudge, segment: Segment
) -> None:
    with pytest.raises(
        ValueError, match=r"simulator states of Hopper-v5, 13 numbers per step, .*; set env\.id="
    ):
        flips.score(segment)


def test_an_impossible_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="margin is a difference of scores, 0 or more; got -1"):
        BackflipJudge(margin=-1)


def test_an_answer_does_not_change_on_the_way_through_redis_nor_with_env_rewards(
    flips: BackflipJudge,
) -> None:
    first, second = clip(turning(0.5), name="a"), clip(hopper(), name="b")
    again = decode(encode(first))
    paid = replace(second, env_reward=np.full(STEPS, 1e6, np.float32))
    assert flips.answer(Query(id="q", candidates=(again, paid))) is flips.answer(
        Query(id="q", candidates=(first, second))
    )


def test_a_judge_of_one_s_own_names_an_environment_and_a_score() -> None:
    class Tall(Judge):
        env_id = "Hopper-v5"

        def score(self, segment: Segment) -> float:
            return float(self.body.qpos(segment)[:, 1].mean())

    tall, small = (clip(hopper(height=height), name=f"{height}") for height in (1.3, 0.5))
    assert prefers(Tall(margin=0.0), tall, small) is Answer.FIRST


@pytest.mark.parametrize("name", ["hopper_backflip", "cheetah_one_leg"])
def test_the_files_send_no_env_reward_and_can_be_asked_of_people(name: str) -> None:
    config = load(CONFIGS / f"{name}.yaml")
    assert not config.shares_env_reward
    assert config.env.hide_termination
    assert config.labels.budget == 900
    judge = make_teacher(config.labels.teacher, seed=0)
    assert isinstance(judge, Judge)
    env = make_env(config.env)
    assert state_kind(env) == "mujoco"
    assert sim_state(env).shape == (WIDTH[judge.env_id],)  # type: ignore[union-attr]
    env.close()  # type: ignore[no-untyped-call]
    assert load(CONFIGS / f"{name}.yaml", sets=["labels.source=human"]).labels.source == "human"


def test_the_knobs_of_a_judge_are_the_teacher_s_kwargs() -> None:
    config = TeacherConfig(name="rlhp.labeling.judges:BackflipJudge", kwargs={"rolling": 0.0})
    judge = make_teacher(config, seed=0)
    assert isinstance(judge, BackflipJudge)
    assert judge.rolling == 0.0


def test_a_judge_needs_neither_torch_nor_ray_and_no_simulator_until_it_is_built() -> None:
    code = (
        "import sys; from rlhp.labeling.judges import BackflipJudge; light = 'mujoco' not in "
        "sys.modules; BackflipJudge(); print(light, *[name for name in ('torch', 'ray') if name "
        "in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["True"], "")
