"""Videos of the policy: one episode, drawn by a process of its own, with the predicted
reward of every frame beside.

    videos/policy.webm    the newest one (or .mp4, .png, by clips.codec)
    videos/policy.json    {"fps", "predicted": one number per frame or null, "reward_version",
                          "env_steps", "how"}

Best effort: what cannot be drawn is said once and holds nothing up. The env reward is
in neither file, since people who label may watch.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhp.config.schema import ClipsConfig, RunConfig
from rlhp.envs.make import EnvFacts
from rlhp.errors import RlhpError
from rlhp.files import write_whole
from rlhp.labeling.clips.painter import Painter
from rlhp.labeling.clips.views import check_drawable
from rlhp.learn.evaluate import Act, play_episode
from rlhp.reward.service import NoRewardYet, RewardModel
from rlhp.reward.versions import RewardStore
from rlhp.storage.rundir import RunDir
from rlhp.types import Segment

log = logging.getLogger(__name__)

SUFFIX = {"vp9": ".webm", "h264": ".mp4", "apng": ".png"}
SEED = 2_000_003
"""The seed of the run is added to it: every video of a run has the same start, so that
they can be compared.
"""
PATIENCE = 10
"""A video is so many times longer than a clip, and may take as much longer to draw."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """An episode that was played, not drawn yet."""

    episode: Segment
    predicted: list[float] | None
    reward_version: int | None
    env_steps: int


class PolicyVideos:
    """Videos of one run's policy, in `videos/`; one at a time, drawn while the run goes
    on.
    """

    def __init__(
        self, config: RunConfig, rundir: RunDir, facts: EnvFacts, *, say: Callable[[str], None]
    ) -> None:
        self._config, self._rundir, self._facts, self._say = config, rundir, facts, say
        self._drawing: threading.Thread | None = None
        self._silent = False
        self._newest: Path | None = None

    def record(
        self, make_act: Callable[[Any], Act], *, env_steps: int, wait: bool = False
    ) -> Path | None:
        """Play an episode now and draw it in the background, unless the last one is
        still being drawn.

        With `wait` it is drawn before this returns. Returns the newest video, None where
        there is none.
        """
        if self._silent or not self._config.clips.policy_seconds:
            return None
        if wait:
            self.wait()
        elif self._drawing is not None and self._drawing.is_alive():
            return self._newest
        try:
            recording = record_episode(
                make_act,
                self._config,
                self._rundir,
                self._facts,
                env_steps=env_steps,
                seed=SEED + self._config.seed,
            )
        except ValueError as error:
            self._give_up(str(error))
            return None
        self._drawing = threading.Thread(
            target=self._draw, args=(recording,), name="policy video", daemon=True
        )
        self._drawing.start()
        if wait:
            self.wait()
        return self._newest

    def wait(self) -> None:
        """Until nothing is being drawn."""
        if self._drawing is not None:
            self._drawing.join()

    def _draw(self, recording: Recording) -> None:
        out = self._rundir.videos / f"policy{SUFFIX[self._config.clips.codec]}"
        try:
            draw(recording, self._config, out)
            self._newest = out
        except (ValueError, OSError) as error:
            self._give_up(str(error))

    def _give_up(self, why: str) -> None:
        self._silent = True
        self._say(f"no video of the policy: {why.partition('. To let scripts')[0]}")


def record_episode(
    make_act: Callable[[Any], Act],
    config: RunConfig,
    rundir: RunDir,
    facts: EnvFacts,
    *,
    env_steps: int,
    seed: int,
) -> Recording:
    """Play an episode, as long as `clips.policy_seconds`; ValueError where it could not
    be drawn.
    """
    check_drawable(config.env)
    steps = max(1, round(config.clips.policy_seconds * (config.clips.fps or facts.fps)))
    episode = play_episode(
        make_act, config.env, facts.spaces, steps=steps, seed=seed, name=f"{rundir.name}-policy"
    )
    predicted, version = None, None
    if config.preferences:
        model = RewardModel(facts.spaces, newest=RewardStore(rundir.path / "reward").newest)
        obs = facts.spaces.obs.flatten({path: leaf[:-1] for path, leaf in episode.obs.items()})
        try:
            rewards, version = model.predict(obs[None], episode.actions[None])
            predicted = [round(float(reward), 5) for reward in rewards[0]]
        except NoRewardYet:
            version = None
    return Recording(
        episode=episode, predicted=predicted, reward_version=version, env_steps=env_steps
    )


def draw(recording: Recording, config: RunConfig, out: Path) -> None:
    """Write the video and, beside it, the JSON; CannotDraw or PainterBroken where that
    cannot be.
    """
    clips = codec_of(config.clips, out)
    with Painter(
        config.env, clips.model_copy(update={"timeout_seconds": PATIENCE * clips.timeout_seconds})
    ) as painter:
        clip = painter.clip(recording.episode)
    facts = {
        "fps": clip.fps,
        "predicted": recording.predicted,
        "reward_version": recording.reward_version,
        "env_steps": recording.env_steps,
        "how": clip.how,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, data in (
        (out, clip.data),
        (out.with_suffix(".json"), json.dumps(facts).encode() + b"\n"),
    ):
        write_whole(path, data)  # whoever watches sees the old video or the new one


def codec_of(clips: ClipsConfig, out: Path) -> ClipsConfig:
    """The configuration whose codec is that of the file's ending; ValueError for an
    unknown one.
    """
    codecs = {suffix: codec for codec, suffix in SUFFIX.items()}
    if out.suffix not in codecs:
        raise RlhpError(f"a video ends in {', '.join(codecs)}; got {out.name!r}")
    return clips.model_copy(update={"codec": codecs[out.suffix]})
