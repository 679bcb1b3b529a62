"""Which environment, and how an Atari game is shown."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rlhp.configlabeling import Section


class AtariConfig(Section):
    """What is shown of an Atari game (`env.id: ALE/...`) and what it pays: Christiano et al. 2017, A.2."""

    size: int = Field(default=84, ge=12, description="Pixels along each edge of a grey frame.")
    stack: int = Field(default=4, ge=1, description="Frames per observation, the newest last.")
    frame_skip: int = Field(
        default=4, ge=1, description="Frames per step, during which the action is held; the last two are merged."
    )
    noops: int = Field(default=30, ge=0, description="Most frames that pass before the policy takes a new game over.")
    sticky_actions: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a frame repeats the action of the frame before."
    )
    blank_score: bool = Field(
        default=True, description="Black out the score, for policy and reward model; only where its place is known."
    )
    clip_rewards: bool = Field(
        default=True,
        description="The env reward of a step lies in -1..1; episode returns are reported as the game's score.",
    )
    threads: int = Field(default=1, ge=1, description="Threads that each env runner steps its games with.")


class EnvConfig(Section):
    """Which environment, and what of it is hidden from the policy."""

    id: str = Field(description="A Gymnasium id, or `package.module:factory` called with `kwargs`.")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Passed to the environment.")
    hide_termination: bool = Field(
        default=False,
        description="Never end an episode early, since an early end tells the policy about the task. The MuJoCo "
        "tasks of Christiano et al. get the paper's bonus instead; any other environment is reset unseen.",
    )
    termination_penalty: float = Field(
        default=0.0,
        ge=0,
        description="Subtracted from the env reward when a hidden termination happens (environments without a "
        "bonus of their own).",
    )
    max_episode_steps: int | None = Field(
        default=None, ge=1, description="Time limit in steps; null keeps the environment's own."
    )
    atari: AtariConfig = Field(default_factory=AtariConfig)
