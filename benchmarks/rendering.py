"""What clips cost: milliseconds per frame and per clip, and what keeping pictures costs
a rollout.

    python -m benchmarks.rendering          # 240 x 240 pixels, segments of 30 steps
    python -m benchmarks.rendering --quick  # one backend, one task, one repeat

A figure is the median over repeats of clips of different segments, in a drawing process
of its own that has drawn one clip before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from benchmarks.report import rows
from rlhp.config.schema import ClipsConfig, EnvConfig
from rlhp.envs.make import make_vector_env, probe
from rlhp.labeling.clips import gl
from rlhp.labeling.clips.painter import Painter, PainterBroken
from rlhp.learn.evaluate import play_episode, random_act
from rlhp.types import Segment

NAME = "rendering"
STEPS = 30
MUJOCO = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5")
OTHERS = ("CartPole-v1", "Pendulum-v1", "LunarLander-v3", "ALE/Pong-v5", "BipedalWalker-v3")
TARGET_MS = 5.0
"""Most CPU time per frame for MuJoCo on EGL, without a GPU; drawing takes one thread.
"""
KEPT = 200
"""Steps over which the cost of keeping pictures is measured."""


def segments(env: EnvConfig, *, count: int) -> list[Segment]:
    """Random actions from the start of as many episodes."""
    spaces = probe(env).spaces
    return [
        play_episode(random_act, env, spaces, steps=STEPS, seed=seed, name=f"{env.id}-{seed}")
        for seed in range(count)
    ]


def measure_clips(env_id: str, *, codec: str, backend: str, repeats: int) -> None:
    """Draw and encode, unless the row is there."""
    key = {"kind": "clip", "env": env_id, "codec": codec, "backend": backend}
    if rows.done(NAME, key):
        return
    env = EnvConfig(id=env_id, hide_termination=True, max_episode_steps=1000)
    clips = ClipsConfig.model_validate(
        {"codec": codec, "backend": backend if env_id in MUJOCO else "auto"}
    )
    try:
        with Painter(env, clips) as painter:
            made = [painter.clip(each) for each in segments(env, count=repeats + 1)][1:]
    except PainterBroken as error:
        print(f"{env_id} with {backend}: {error}")
        return
    draw = [clip.draw_ms / clip.frames for clip in made]
    row = {
        **key,
        "how": made[0].how,
        "width": made[0].width,
        "height": made[0].height,
        "frames": STEPS,
        "draw_ms_per_frame": statistics.median(draw),
        "draw_cpu_ms_per_frame": statistics.median(clip.draw_cpu_ms / clip.frames for clip in made),
        "encode_ms": statistics.median(clip.encode_ms for clip in made),
        "clip_ms": statistics.median(clip.draw_ms + clip.encode_ms for clip in made),
        "kilobytes": statistics.median(len(clip.data) for clip in made) / 1000,
        "repeats": repeats,
    }
    rows.append(NAME, row)
    print(row)


def measure_pictures(env_id: str, *, repeats: int) -> None:
    """A step with and without keeping a picture of it."""
    key = {"kind": "pictures", "env": env_id}
    if rows.done(NAME, key):
        return
    env = EnvConfig(id=env_id, hide_termination=True)
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats):
        for pictures in (False, True):
            found[pictures].append(_microseconds(env, pictures=pictures))
    medians = {pictures: statistics.median(values) for pictures, values in found.items()}
    row = {**key, "without_us": medians[False], "with_us": medians[True], "repeats": repeats}
    rows.append(NAME, row)
    print(row)


def _microseconds(env: EnvConfig, *, pictures: bool) -> float:
    vector: Any = make_vector_env(env, num_envs=1, vectorize="sync", pictures=pictures)
    try:
        vector.reset(seed=[0])
        vector.action_space.seed(0)
        actions = [vector.action_space.sample() for _ in range(KEPT)]
        started = time.perf_counter()
        for action in actions:
            if pictures:
                vector.envs[0].picture()
            vector.step(action)
        return 1e6 * (time.perf_counter() - started) / KEPT
    finally:
        vector.close()


def section() -> str:
    """The table for docs/benchmarks.md."""
    found = rows.read(NAME)
    lines = [
        "## Clips",
        "",
        "    python -m benchmarks.rendering",
        "",
        f"Segments of {STEPS} steps, drawn and encoded without a GPU, median over repeats. MuJoCo "
        f"is drawn at 240 x 240 from saved states; the aim is {TARGET_MS:.0f} ms of CPU per frame "
        "with EGL.",
        "",
        "| task | drawn by | codec | pixels | ms per frame | CPU ms per frame | encoding, ms | ms "
        "per clip | kB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    clips = sorted((row for row in found if row["kind"] == "clip"), key=_place)
    for row in clips:
        lines.append(
            f"| {row['env']} | {row['how']} | {row['codec']} | {row['width']} x {row['height']} | "
            f"{row['draw_ms_per_frame']:.1f} | {row['draw_cpu_ms_per_frame']:.1f} | "
            f"{row['encode_ms']:.0f} | {row['clip_ms']:.0f} | {row['kilobytes']:.0f} |"
        )
    egl = [row["draw_cpu_ms_per_frame"] for row in clips if row["how"] == "mujoco (egl)"]
    if egl:
        verdict = "met" if max(egl) <= TARGET_MS else "missed"
        lines += [
            "",
            f"Slowest MuJoCo task with EGL: {max(egl):.1f} ms of CPU per frame; the aim is "
            f"{verdict}.",
        ]
    for row in found:
        if row["kind"] == "pictures":
            lines += [
                "",
                "An environment without a state to draw from is drawn while it is stepped, for "
                f"people only, in the first environment of each runner: a step of {row['env']} "
                f"then takes {row['with_us']:.0f} us there instead of {row['without_us']:.0f}.",
            ]
    commits = ", ".join(sorted({row["commit"] for row in found}))
    machines = "; ".join(sorted({row["machine"] for row in found}))
    return "\n".join([*lines, "", f"Commit {commits}. Machine: {machines}."])


def _place(row: dict[str, Any]) -> tuple[int, int, int]:
    tasks, backends = [*MUJOCO, *OTHERS], ["egl", "osmesa", "schematic", ""]
    return backends.index(row["backend"]), int(row["codec"] != "vp9"), tasks.index(row["env"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    backends = [backend for backend in gl.BACKENDS if gl.works(backend)]
    if arguments.quick:
        measure_clips("HalfCheetah-v5", codec="vp9", backend=(*backends, "schematic")[0], repeats=1)
        return
    for backend in (*backends, "schematic"):
        for env_id in MUJOCO:
            measure_clips(env_id, codec="vp9", backend=backend, repeats=arguments.repeats)
    for codec in ("h264", "apng"):
        measure_clips(
            "HalfCheetah-v5",
            codec=codec,
            backend=(*backends, "schematic")[0],
            repeats=arguments.repeats,
        )
    for env_id in OTHERS:
        measure_clips(env_id, codec="vp9", backend="", repeats=arguments.repeats)
    measure_pictures("BipedalWalker-v3", repeats=arguments.repeats)


if __name__ == "__main__":
    main()
