"""How a run is measured, what of it is kept, and when it speaks up: sections of the configuration."""

from __future__ import annotations

from pydantic import Field

from rlhp.configlabeling import Section


class EvaluationConfig(Section):
    """How the policy's true return is measured."""

    episodes: int = Field(default=10, ge=1, description="Episodes per evaluation.")
    every_env_steps: int | None = Field(default=None, ge=1, description="Steps between evaluations; null: end only.")
    explore: bool = Field(default=False, description="Sample actions instead of taking the most likely one.")


class CheckpointConfig(Section):
    """What survives a crash."""

    every_env_steps: int | None = Field(default=50_000, ge=1, description="Steps between checkpoints; null: end only.")
    keep: int = Field(default=2, ge=1, description="Newest checkpoints kept.")
    keep_best: bool | None = Field(
        default=None,
        description="Keep the one with the highest true return too, for `rlhp eval --best`; nothing in a run reads it. "
        "null: unless people answer, whose task the env reward is not.",
    )
    store: str | None = Field(
        default=None,
        description="Copy checkpoints to `file:///directory`, `s3://bucket/prefix` or `gs://bucket/prefix` as well; a "
        "resume takes the newest from there. Credentials come from the environment.",
    )


class WatchConfig(Section):
    """What is said to people who do not look at the curves."""

    quiet_seconds: float | None = Field(
        default=300,
        gt=0,
        description="Without an env step, an answer or a reward version for that long, a line says what the run seems "
        "to wait for. null: never.",
    )
