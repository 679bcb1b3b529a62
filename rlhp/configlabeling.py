"""Who answers, and what people are shown: the sections for labels, clips and page, and the base of every section."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

LARGEST = 2**53
"""Of whole numbers: beyond it JSON, numpy and torch no longer agree on which number it is."""


class Section(BaseModel):
    """A group of keys: unknown ones are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _not_beyond(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(
                f"a whole number is at most {LARGEST}, got one of {len(hex(value)) - 2} hex digits; lower it"
            )
        return value


class TeacherConfig(Section):
    """A synthetic answerer (B-Pref, Lee et al. 2021). The defaults are the perfect oracle."""

    name: str = Field(
        default="oracle",
        description="`oracle`, `noisy`, `mistake`, `skip`, `equal`, `myopic` (B-Pref's presets, on top of which "
        "the keys below count), or `package.module:Name` of your own.",
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Passed to a teacher of your own.")
    beta: float | None = Field(
        default=None, gt=0, description="Rationality of the Boltzmann teacher; null answers deterministically."
    )
    gamma: float | None = Field(
        default=None, gt=0, le=1, description="Weight of a step per step of age within a segment."
    )
    mistake: float | None = Field(default=None, ge=0, le=1, description="Probability that an answer is flipped.")
    skip: float | None = Field(
        default=None, ge=0, description="Share of the mean return below which both segments are `incomparable`."
    )
    equal: float | None = Field(
        default=None, ge=0, description="Share of the mean return within which the answer is `tie`."
    )
    latency_seconds: float = Field(default=0, ge=0, description="Seconds taken per answer.")


class LabelsConfig(Section):
    """Who answers, how often is asked, and when."""

    source: Literal["none", "oracle", "human"] = Field(
        default="oracle",
        description="`none` trains on the env reward (the control arm), `oracle` starts teachers, `human` leaves "
        "queries in Redis until somebody answers.",
    )
    budget: int = Field(
        default=700,
        ge=0,
        description="Most queries asked in the whole run; 0 rewards the policy by an untrained ensemble, to compare.",
    )
    initial_share: float = Field(
        default=0.1, ge=0, le=1, description="Share of the budget asked about the random policy, before learning."
    )
    schedule: Literal["hyperbolic", "constant", "exponential", "offline", "adaptive"] = Field(
        default="hyperbolic",
        description="How the rest is spread over the steps: rate ~ c/(T+c) as in the paper, constant, rl-teacher's "
        "exponential, everything before learning, or faster than in the paper while fresh answers contradict the "
        "reward and slower while they agree with it.",
    )
    schedule_c: float | None = Field(
        default=None, gt=0, description="c of the hyperbolic schedule in env steps; null is 0.4 of the run's steps."
    )
    teacher: TeacherConfig = Field(default_factory=TeacherConfig, description="Who answers when source is `oracle`.")
    labelers: int = Field(default=1, ge=0, description="Teacher processes started with the run; more may join.")
    share_env_reward: bool | None = Field(
        default=None,
        description="Send env rewards with offered segments, for teachers only; null: only for `oracle`.",
    )
    reuse: str | None = Field(
        default=None, description="Run directory (or its `preferences/`) whose answers this run starts from."
    )
    votes: int = Field(
        default=1,
        ge=1,
        le=9,
        description="Labelers asked about each query. The majority counts, a tie where there is none; the budget "
        "counts the query once.",
    )
    instruction: str = Field(
        default="",
        description="What labelers are told to judge by, above the clips; its first sentence is the headline.",
    )

    @property
    def initial_queries(self) -> int:
        """Queries asked before learning: at least one, where any share of a budget is to be asked then."""
        if self.schedule == "offline":
            return self.budget
        least = 1 if self.budget and self.initial_share else 0
        return max(least, round(self.budget * self.initial_share))


class ClipsConfig(Section):
    """Videos of segments for people, and of the final policy."""

    enabled: bool | None = Field(
        default=None,
        description="Draw both segments of a query before it is offered; null: only for `labels.source=human`. With "
        "`false` people are left with what scripts can show them.",
    )
    width: int = Field(default=240, ge=32, le=1920, description="Pixels of a clip; MuJoCo draws exactly as many.")
    height: int = Field(
        default=240, ge=32, le=1080, description="The same; an environment that draws itself is scaled to fit."
    )
    fps: int | None = Field(
        default=None,
        ge=1,
        le=120,
        description="Steps per second of playback; null: what suits people, as the paper chose it for its tasks "
        "(Hopper steps 125 times a second and plays 40), else the environment's own.",
    )
    codec: Literal["vp9", "h264", "apng"] = Field(
        default="vp9", description="VP9 in WebM, H.264 in fragmented MP4, or animated PNG, which is lossless and large."
    )
    crf: int = Field(default=32, ge=0, le=51, description="Quality of VP9 and H.264: lower is better and larger.")
    backend: Literal["auto", "egl", "osmesa", "schematic"] = Field(
        default="auto",
        description="What draws MuJoCo: the first of EGL, OSMesa and a schematic side view that works on the machine.",
    )
    store: str | None = Field(
        default=None,
        description="Where clips lie: null in the run's Redis, else `file:///directory` or `s3://bucket/prefix`, which "
        "whoever serves them must reach too.",
    )
    cap_mb: int = Field(
        default=128,
        ge=1,
        description="Most megabytes of clips in Redis. Those of queries finished longest ago go first; where that "
        "does not suffice, drawing waits for answers.",
    )
    keep_minutes: float = Field(
        default=30, ge=0, description="How long segments and clips of a finished query are kept, for undo."
    )
    timeout_seconds: float = Field(default=60, gt=0, description="A clip not drawn by then is given up.")
    policy_seconds: float = Field(
        default=20, ge=0, description="Longest video of the final policy, in seconds of playback; 0: none."
    )


class PageConfig(Section):
    """The page on which people answer; `source: human` starts it with the run, `rlhp serve` at any time."""

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen at; wherever they are, people need a token, which the link has.",
    )
    port: int = Field(default=8080, ge=0, le=65535, description="Taken or 0: a free one, which is said.")
    strength: bool = Field(default=False, description="Ask how clear the preference is: slight or clear.")


class QualityConfig(Section):
    """How labelers are checked, and what becomes of those whose answers look like guessing."""

    gold_rate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Checks per answer of a labeler: pairs whose answer is known, and repeats. They cost no budget and "
        "never train the reward. 0: none at all; null: 0.05 for people, 0 for teachers.",
    )
    probation: int = Field(
        default=15, ge=0, description="Checks among the first answers of a new labeler, every second one of them."
    )
    trusted: tuple[str, ...] = Field(
        default=(), description="Labelers whose answers are taken as known when others are checked, and never doubted."
    )
    action: Literal["none", "weigh", "pause"] | None = Field(
        default=None,
        description="`weigh`: doubtful answers count less in the fit, those of guessers not at all. `pause`: guessers "
        "are asked nothing more, too. null: `pause` for people, `none` for teachers.",
    )
