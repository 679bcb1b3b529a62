"""Every knob of a run: typed, with its unit and meaning beside it. YAML in, all errors
at once. All sections and all rules across them are in this one file, so that a key is
found by searching one page.

Each field's description is the documentation: docs/configuration.md is generated from
here. Files and `--set` are read by `rlhp.config.loading`.

Sections stand in this order: who answers and what people are shown; where a run lives
(Redis, Ray); the environment; how a run is measured, kept and watched; rollouts,
queries, the reward, the learner; the whole. `conflicts` has the rules across keys:
combinations that cannot work, each with its mechanism and its way out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import shorten
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from rlhp.config import addresses
from rlhp.errors import RlhpError

LARGEST = 2**53
"""The largest whole number of a key: beyond it JSON, numpy and torch no longer agree on
which number it is.
"""


Network = Literal["auto", "mlp", "cnn", "cnn_coarse", "cnn_small"]
"""Layers of policies and rewards, see `rlhp.models.convolution`."""


class Section(BaseModel):
    """A group of keys: unknown ones are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _not_beyond(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(
                f"a whole number is at most {LARGEST}, got one of {len(hex(value)) - 2} hex "
                "digits; lower it"
            )
        return value


class TeacherConfig(Section):
    """A synthetic answerer (B-Pref, Lee et al. 2021). The defaults are the perfect
    oracle.
    """

    name: str = Field(
        default="oracle",
        description="`oracle`, `noisy`, `mistake`, `skip`, `equal`, `myopic` (B-Pref's presets, "
        "on top of which "
        "the keys below count), or `package.module:Name` of your own.",
    )
    kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Passed to a teacher of your own."
    )
    beta: float | None = Field(
        default=None,
        gt=0,
        description="Rationality of the Boltzmann teacher; null answers deterministically.",
    )
    gamma: float | None = Field(
        default=None, gt=0, le=1, description="Weight of a step per step of age within a segment."
    )
    mistake: float | None = Field(
        default=None, ge=0, le=1, description="Probability that an answer is flipped."
    )
    skip: float | None = Field(
        default=None,
        ge=0,
        description="Share of the mean return below which both segments are `incomparable`.",
    )
    equal: float | None = Field(
        default=None, ge=0, description="Share of the mean return within which the answer is `tie`."
    )
    latency_seconds: float = Field(default=0, ge=0, description="Seconds taken per answer.")


class LabelsConfig(Section):
    """Who answers, how often is asked, and when."""

    source: Literal["none", "oracle", "human"] = Field(
        default="oracle",
        description="`none` trains on the env reward (the control arm), `oracle` starts teachers, "
        "`human` leaves "
        "queries in Redis until somebody answers.",
    )
    budget: int = Field(
        default=700,
        ge=0,
        description=(
            "Most queries asked in the whole run; 0 rewards the policy by an untrained "
            "ensemble, to compare."
        ),
    )
    initial_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of the budget asked about the random policy, before learning.",
    )
    schedule: Literal["hyperbolic", "constant", "exponential", "offline", "adaptive"] = Field(
        default="hyperbolic",
        description="How the rest is spread over the steps: rate ~ c/(T+c) as in the paper, "
        "constant, rl-teacher's "
        "exponential, everything before learning, or faster than in the paper while fresh answers "
        "contradict the "
        "reward and slower while they agree with it.",
    )
    schedule_c: float | None = Field(
        default=None,
        gt=0,
        description="c of the hyperbolic schedule in env steps; null is 0.4 of the run's steps.",
    )
    teacher: TeacherConfig = Field(
        default_factory=TeacherConfig, description="Who answers when source is `oracle`."
    )
    labelers: int = Field(
        default=1, ge=0, description="Teacher processes started with the run; more may join."
    )
    share_env_reward: bool | None = Field(
        default=None,
        description=(
            "Send env rewards with offered segments, for teachers only; null: only for `oracle`."
        ),
    )
    reuse: str | None = Field(
        default=None,
        description="Run directory (or its `preferences/`) whose answers this run starts from.",
    )
    votes: int = Field(
        default=1,
        ge=1,
        le=9,
        description="Labelers asked about each query. The majority counts, a tie where there is "
        "none; the budget "
        "counts the query once.",
    )
    instruction: str = Field(
        default="",
        description=(
            "What labelers are told to judge by, above the clips; its first sentence is "
            "the headline."
        ),
    )

    @property
    def initial_queries(self) -> int:
        """Queries asked before learning: at least one, where any share of a budget is
        to be asked then.
        """
        if self.schedule == "offline":
            return self.budget
        least = 1 if self.budget and self.initial_share else 0
        return max(least, round(self.budget * self.initial_share))


class ClipsConfig(Section):
    """Videos of segments for people, and of the final policy."""

    enabled: bool | None = Field(
        default=None,
        description="Draw both segments of a query before it is offered; null: only for "
        "`labels.source=human`. With "
        "`false` people are left with what scripts can show them.",
    )
    width: int = Field(
        default=240, ge=32, le=1920, description="Pixels of a clip; MuJoCo draws exactly as many."
    )
    height: int = Field(
        default=240,
        ge=32,
        le=1080,
        description="The same; an environment that draws itself is scaled to fit.",
    )
    fps: int | None = Field(
        default=None,
        ge=1,
        le=120,
        description="Steps per second of playback; null: what suits people, as the paper chose it "
        "for its tasks "
        "(Hopper steps 125 times a second and plays 40), else the environment's own.",
    )
    codec: Literal["vp9", "h264", "apng"] = Field(
        default="vp9",
        description=(
            "VP9 in WebM, H.264 in fragmented MP4, or animated PNG, which is lossless and large."
        ),
    )
    backend: Literal["auto", "egl", "osmesa", "schematic"] = Field(
        default="auto",
        description=(
            "What draws MuJoCo: the first of EGL, OSMesa and a schematic side view that "
            "works on the machine."
        ),
    )
    store: str | None = Field(
        default=None,
        description="Where clips lie: null in the run's Redis, else `file:///directory` or "
        "`s3://bucket/prefix`, which "
        "whoever serves them must reach too.",
    )
    cap_mb: int = Field(
        default=128,
        ge=1,
        description="Most megabytes of clips in Redis. Those of queries finished longest ago go "
        "first; where that "
        "does not suffice, drawing waits for answers.",
    )
    keep_minutes: float = Field(
        default=30,
        ge=0,
        description="How long segments and clips of a finished query are kept, for undo.",
    )
    timeout_seconds: float = Field(
        default=60, gt=0, description="A clip not drawn by then is given up."
    )
    policy_seconds: float = Field(
        default=20,
        ge=0,
        description="Longest video of the final policy, in seconds of playback; 0: none.",
    )

    @field_validator("store")
    @classmethod
    def _without_keys(cls, store: str | None) -> str | None:
        return addresses.check_store(store)


class PageConfig(Section):
    """The page on which people answer; `source: human` starts it with the run, `rlhp
    serve` at any time.
    """

    host: str = Field(
        default="127.0.0.1",
        description=(
            "Address to listen at; wherever they are, people need a token, which the link has."
        ),
    )
    port: int = Field(
        default=8080, ge=0, le=65535, description="Taken or 0: a free one, which is said."
    )
    strength: bool = Field(
        default=False, description="Ask how clear the preference is: slight or clear."
    )


class QualityConfig(Section):
    """How labelers are checked, and what becomes of those whose answers look like
    guessing.
    """

    gold_rate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Checks per answer of a labeler: pairs whose answer is known, and repeats. "
        "They cost no budget and "
        "never train the reward. 0: none at all; null: 0.05 for people, 0 for teachers.",
    )
    probation: int = Field(
        default=15,
        ge=0,
        description="Checks among the first answers of a new labeler, every second one of them.",
    )
    trusted: tuple[str, ...] = Field(
        default=(),
        description=(
            "Labelers whose answers are taken as known when others are checked, and never doubted."
        ),
    )
    action: Literal["none", "weigh", "pause"] | None = Field(
        default=None,
        description="`weigh`: doubtful answers count less in the fit, those of guessers not at "
        "all. `pause`: guessers "
        "are asked nothing more, too. null: `pause` for people, `none` for teachers.",
    )


class RedisConfig(Section):
    """Where queries and answers live."""

    url: str | None = Field(
        default=None,
        description=(
            "`redis://`, `rediss://` or `unix://`; null starts an embedded server in the run."
        ),
    )
    username: str | None = Field(
        default=None, description="ACL user of that server; null: the default user."
    )
    password_file: str | None = Field(
        default=None,
        description="File whose first line is the password; RLHP_REDIS_PASSWORD and "
        "RLHP_REDIS_PASSWORD_FILE say the "
        "same from the environment. Never written into the run directory.",
    )
    ca_file: str | None = Field(
        default=None,
        description="PEM file of the authority that signed the server's certificate (`rediss://`).",
    )
    cert_file: str | None = Field(
        default=None, description="PEM file of our certificate, where the server wants one."
    )
    key_file: str | None = Field(default=None, description="PEM file of its key.")
    durable: Literal["everysec", "always"] = Field(
        default="everysec", description="Embedded: when AOF is synced."
    )
    connect_timeout_seconds: float = Field(
        default=10, gt=0, description="How long a start waits for the server."
    )

    @field_validator("url")
    @classmethod
    def _readable(cls, url: str | None) -> str | None:
        return None if url is None else addresses.check(url)


class RayConfig(Section):
    """Which Ray cluster."""

    address: str | None = Field(
        default=None, description="null starts a local Ray; `auto` or `host:port` joins one."
    )
    num_cpus: int | None = Field(
        default=None, ge=1, description="Logical CPUs of a local Ray; null fits the run."
    )
    wait_seconds: float = Field(
        default=20,
        ge=0,
        description="How long a start waits for room on the cluster, before it ends with what is "
        "missing. Where an "
        "autoscaler has to start machines, give it their time, as in 900.",
    )
    max_restarts: int = Field(
        default=5,
        ge=0,
        description="How often in a row, with no new checkpoint between, a lost learner is "
        "started again from the last "
        "checkpoint before the run gives up.",
    )
    stall_seconds: float = Field(
        default=300,
        gt=0,
        description="Without a new env step for that long, env runners and learners are killed "
        "and started again; "
        "longer than the longest iteration. Waiting for answers or for a reward model does not "
        "count.",
    )


class AtariConfig(Section):
    """What is shown of an Atari game (`env.id: ALE/...`) and what it pays: Christiano
    et al. 2017, A.2.
    """

    size: int = Field(default=84, ge=12, description="Pixels along each edge of a gray frame.")
    stack: int = Field(default=4, ge=1, description="Frames per observation, the newest last.")
    frame_skip: int = Field(
        default=4,
        ge=1,
        description="Frames per step, during which the action is held; the last two are merged.",
    )
    noops: int = Field(
        default=30,
        ge=0,
        description="Most frames that pass before the policy takes a new game over.",
    )
    sticky_actions: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Probability that a frame repeats the action of the frame before.",
    )
    blank_score: bool = Field(
        default=True,
        description=(
            "Black out the score, for policy and reward model; only where its place is known."
        ),
    )
    clip_rewards: bool = Field(
        default=True,
        description=(
            "The env reward of a step lies in -1..1; episode returns are reported as the "
            "game's score."
        ),
    )
    threads: int = Field(
        default=1, ge=1, description="Threads that each env runner steps its games with."
    )


class EnvConfig(Section):
    """Which environment, and what of it is hidden from the policy."""

    id: str = Field(description="A Gymnasium id, or `package.module:factory` called with `kwargs`.")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Passed to the environment.")
    hide_termination: bool = Field(
        default=False,
        description="Never end an episode early, since an early end tells the policy about the "
        "task. The MuJoCo "
        "tasks of Christiano et al. get the paper's bonus instead; any other environment is reset "
        "unseen.",
    )
    termination_penalty: float = Field(
        default=0.0,
        ge=0,
        description="Subtracted from the env reward when a hidden termination happens "
        "(environments without a "
        "bonus of their own).",
    )
    max_episode_steps: int | None = Field(
        default=None, ge=1, description="Time limit in steps; null keeps the environment's own."
    )
    atari: AtariConfig = Field(default_factory=AtariConfig)


class EvaluationConfig(Section):
    """How the policy's true return is measured."""

    episodes: int = Field(default=10, ge=1, description="Episodes per evaluation.")
    every_env_steps: int | None = Field(
        default=None, ge=1, description="Steps between evaluations; null: end only."
    )
    explore: bool = Field(
        default=False, description="Sample actions instead of taking the most likely one."
    )


class CheckpointConfig(Section):
    """What survives a crash."""

    every_env_steps: int | None = Field(
        default=50_000, ge=1, description="Steps between checkpoints; null: end only."
    )
    keep: int = Field(default=2, ge=1, description="Newest checkpoints kept.")
    keep_best: bool | None = Field(
        default=None,
        description="Keep the one with the highest true return too, for `rlhp eval --best`; "
        "nothing in a run reads it. "
        "null: unless people answer, whose task the env reward is not.",
    )
    store: str | None = Field(
        default=None,
        description="Copy checkpoints to `file:///directory`, `s3://bucket/prefix` or "
        "`gs://bucket/prefix` as well; a "
        "resume takes the newest from there. Credentials come from the environment.",
    )

    @field_validator("store")
    @classmethod
    def _without_keys(cls, store: str | None) -> str | None:
        return addresses.check_store(store)


class WatchConfig(Section):
    """What is said to people who do not look at the curves."""

    quiet_seconds: float | None = Field(
        default=300,
        gt=0,
        description="Without an env step, an answer or a reward version for that long, a line "
        "says what the run seems "
        "to wait for. null: never.",
    )


def conflicts(config: RunConfig) -> list[str]:
    """One line per rule across keys that is broken."""
    return [
        *_asking_conflicts(config),
        *_answering_conflicts(config),
        *_cluster_conflicts(config),
        *_learning_conflicts(config),
        *_address_conflicts(config.redis),
    ]


def _asking_conflicts(config: RunConfig) -> Iterator[str]:
    """What the questions of a run cannot be."""
    if not config.preferences:
        return
    labels, limit = config.labels, config.env.max_episode_steps
    if limit is not None and config.query.segment_length > limit:
        yield (
            f"query.segment_length={config.query.segment_length} is longer than any episode "
            f"(env.max_episode_steps={limit}), so no full segment could ever be cut; shorten the "
            "segment"
        )
    if config.query.selection == "disagreement" and config.reward.members < 2:
        yield (
            "query.selection=disagreement needs at least two members: with one, every pair scores "
            f"zero. Got reward.members={config.reward.members}; set reward.members=3 or "
            "query.selection=random"
        )
    if labels.budget > 0 and labels.initial_queries == 0 and labels.reuse is None:
        yield (
            f"labels.initial_share={labels.initial_share} asks nothing before learning, so reward "
            "version 1 could never be fitted; raise it"
        )


def _answering_conflicts(config: RunConfig) -> Iterator[str]:
    """Whom a run cannot ask."""
    labels = config.labels
    if labels.source == "oracle" and labels.budget > 0 and labels.labelers == 0:
        yield (
            f"labels.budget={labels.budget} with labels.labelers=0 and labels.source=oracle: "
            "nobody would answer; set labels.labelers=1, or labels.source=human to wait for "
            "labelers from elsewhere"
        )
    if labels.source == "human" and labels.budget == 0 and labels.reuse is None:
        yield (
            "labels.budget=0 with labels.source=human and without labels.reuse: nobody would ever "
            "be asked; give a budget, or name a run to reuse"
        )


def _cluster_conflicts(config: RunConfig) -> Iterator[str]:
    """What a run cannot ask of a cluster."""
    wanted, least = config.rollout.num_env_runners, config.rollout.min_env_runners
    if least is not None and least > wanted:
        yield (
            f"rollout.min_env_runners={least} cannot exceed rollout.num_env_runners={wanted}: a "
            "run starts with the former and grows to the latter"
        )
    for section, resources, instead in (
        ("rollout", config.rollout.resources, "rollout.num_cpus_per_env_runner"),
        ("learner", config.learner.resources, "learner.num_gpus_per_learner"),
    ):
        for taken in sorted({"CPU", "GPU"} & resources.keys())[:1]:
            yield (
                f"{section}.resources={resources} names {taken}, which has a key of its own; "
                f"set {instead}"
            )


def _learning_conflicts(config: RunConfig) -> Iterator[str]:
    """What cannot be fitted or optimized so."""
    reward, learner = config.reward, config.learner
    if isinstance(learner, PPOLearnerConfig) and learner.minibatch_size > learner.train_batch_size:
        yield (
            f"learner.minibatch_size={learner.minibatch_size} cannot exceed "
            f"learner.train_batch_size={learner.train_batch_size}"
        )
    if reward.loss == "regression" and not config.shares_env_reward and config.preferences:
        yield "reward.loss=regression fits true returns, so it needs labels.share_env_reward=true"


def _address_conflicts(redis: RedisConfig) -> list[str]:
    """What an address of Redis and the keys beside it cannot say together."""
    problems = []
    tls = {
        name: value
        for name in ("ca_file", "cert_file", "key_file")
        if (value := getattr(redis, name)) is not None
    }
    if tls and redis.url is not None and not redis.url.startswith("rediss://"):
        problems.append(
            f"redis.{next(iter(tls))}={next(iter(tls.values()))} is for an encrypted connection; "
            "set redis.url to an address that starts with rediss://"
        )
    if (redis.cert_file is None) != (redis.key_file is None):
        problems.append(
            f"redis.cert_file={redis.cert_file} and redis.key_file={redis.key_file} go together: "
            "a certificate is of no use without its key; give both or neither"
        )
    return problems


WIDEST = 65_536


def _layers(widths: tuple[int, ...]) -> tuple[int, ...]:
    if len(widths) > 64 or not all(1 <= width <= WIDEST for width in widths):
        raise ValueError(
            f"at most 64 layers of 1 to {WIDEST} units each, got "
            f"{shorten(str(list(widths)), 60)}; correct it"
        )
    return widths


Widths = Annotated[tuple[int, ...], AfterValidator(_layers)]
"""Units of the hidden layers of a network."""
NEWEST_STEPS, FEWEST_NEWEST = 4000, 50


class RolloutConfig(Section):
    """Env runners: Ray actors that step environments and ask for predicted rewards."""

    num_env_runners: int = Field(
        default=2, ge=0, le=10_000, description="Ray actors; 0 samples inside the driver."
    )
    num_envs_per_env_runner: int = Field(
        default=8, ge=1, le=100_000, description="Environments stepped together by one runner."
    )
    vectorize: Literal["auto", "sync", "native"] = Field(
        default="auto",
        description="`native` uses the environment's own vector implementation, `auto` where it "
        "exists "
        "and no clips are drawn from states.",
    )
    num_cpus_per_env_runner: float = Field(default=1, ge=0, description="CPUs reserved per runner.")
    min_env_runners: int | None = Field(
        default=None,
        ge=1,
        description=(
            "Start with as few as this, and let the others join when the cluster has "
            "room; null: all at once."
        ),
    )
    resources: dict[str, float] = Field(
        default_factory=dict,
        description="Further resources reserved per runner, as `{rollout: 1}`.",
    )
    segments_per_fragment: int = Field(
        default=64,
        ge=1,
        description="Most segments one runner offers to the query actor per fragment.",
    )


class QueryConfig(Section):
    """Which pairs are worth asking about."""

    segment_length: int = Field(default=30, ge=1, description="K, steps per segment.")
    pool: int = Field(
        default=1000, ge=2, le=10_000_000, description="Newest segments kept as candidates."
    )
    newest: int | None = Field(
        default=None,
        ge=2,
        description="One segment of each pair is among this many newest ones, the other any of "
        "the pool. null: those "
        "of the newest 4,000 env steps, at least 50.",
    )
    selection: str = Field(
        default="disagreement",
        description=(
            "`random`, `disagreement` (variance of the members' P(first preferred)), or "
            "`package.module:Name`."
        ),
    )
    random_share: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="Share of the pairs that is drawn at random beside the chosen ones: fresh "
        "accuracy is over these, "
        "so that it is about what the policy does and not about what was chosen.",
    )
    candidate_factor: int = Field(
        default=10, ge=1, description="Random candidate pairs per query asked."
    )
    max_open: int = Field(
        default=200, ge=1, description="Most queries waiting for an answer at a time."
    )
    lease_seconds: float = Field(
        default=60, gt=0, description="A query not answered by then goes to somebody else."
    )


class RewardConfig(Section):
    """The reward ensemble and how it is fitted (Christiano et al. 2017, sections 2.2.1
    and 2.2.3).
    """

    members: int = Field(
        default=5, ge=1, le=1000, description="M, size of the ensemble (3 in the paper)."
    )
    network: Network = Field(
        default="auto",
        description="`cnn` is the paper's for Atari, with batch normalization, `cnn_coarse` two "
        "layers for CPUs, "
        "`cnn_small` two for small pictures, `mlp` dense layers alone; `auto` goes by what the "
        "environment shows.",
    )
    pixels: Literal["scaled", "standardized"] = Field(
        default="scaled",
        description="What the networks see of pictures: bytes as 0 to 1, or each pixel less its "
        "mean, over its "
        "standard deviation, as they were when fitting began.",
    )
    hidden: Widths = Field(
        default=(64, 64),
        description="Units per hidden layer; after the convolutions where there are some.",
    )
    activation: Literal["silu", "leaky_relu", "relu", "tanh"] = Field(
        default="silu",
        description="Between dense layers; networks for pictures have leaky ReLU, as the paper's.",
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description=(
            "Dropout while fitting: on hidden layers, or on whole filters of convolutions "
            "(0.5 for Atari)."
        ),
    )
    use_action: bool | Literal["auto"] = Field(
        default="auto",
        description="r(obs, action) rather than r(obs). `auto`: both are fitted, and each version "
        "is the one that "
        "predicts answers better which it was not fitted to; r(obs) for pictures, r(obs, action) "
        "without `bootstrap`.",
    )
    module: str | None = Field(
        default=None,
        description=(
            "`package.module:Name` of an nn.Module, forward(obs, actions) -> rewards, one "
            "instance per member."
        ),
    )
    module_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Passed to that module."
    )
    loss: Literal["preference", "regression"] = Field(
        default="preference",
        description=(
            "Bradley-Terry, or the paper's `target` ablation: regression on the segment's "
            "true return."
        ),
    )
    error_rate: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of answers taken to be given at random (0.1 in the paper). With it a "
        "network that is sure "
        "of the opposite learns nothing from the answer that says so.",
    )
    bootstrap: bool = Field(
        default=True,
        description=(
            "Each member trains on its own draw with replacement and validates on the rest."
        ),
    )
    optimizer: Literal["adam", "rmsprop"] = Field(default="adam", description="Of the ensemble.")
    lr: float = Field(default=3e-3, gt=0, description="Learning rate of the ensemble.")
    adam_beta1: float = Field(
        default=0.9, ge=0, lt=1, description="Momentum of Adam; 0 for a fast-moving target."
    )
    batch_size: int = Field(
        default=32, ge=1, description="Preferences per gradient step and member."
    )
    l2: float = Field(
        default=3e-3, ge=0, description="Weight of the L2 penalty, at the start where it adapts."
    )
    l2_adaptive: bool = Field(
        default=False,
        description="Keep validation loss between 1.1 and 1.5 times training loss, as the paper.",
    )
    pretrain_epochs: int = Field(
        default=50, ge=1, description="Passes over the initial answers before version 1."
    )
    early_stop_epochs: int = Field(
        default=0,
        ge=0,
        description=(
            "Stop pretraining after this many epochs without a better validation loss; 0: never."
        ),
    )
    label_uses_per_step: float | None = Field(
        default=None,
        ge=0,
        description="Most preferences fed to each member per env step, after pretraining; less "
        "where the answers are "
        "explained. null: 25 steps of segments per env step, or 0.6 uses of segments of 20 steps; "
        "0.1 with pictures.",
    )
    publish_every_steps: int = Field(
        default=2048, ge=1, description="Env steps between reward versions."
    )
    max_lag_steps: int | None = Field(
        default=None,
        ge=1,
        description="The learner waits for fits of answers that have arrived, and for teachers "
        "that are programs, once "
        "they are this many env steps behind; for people it never waits. null: one turn "
        "of the learner (of PPO `learner.train_batch_size`).",
    )
    target_std: float = Field(
        default=0.1,
        gt=0,
        description="Standard deviation of predicted rewards (1 in the paper, 0.05 for Atari). "
        "PPO's value network "
        "starts at zero and has to reach the return, which rewards of 1 put at a hundred.",
    )
    center: Literal["recent", "carried"] = Field(
        default="carried",
        description="Mean predicted reward of recent transitions at a new version: 0 as in the "
        "paper, or what the "
        "version before gave them, so that the value network's returns stay true.",
    )
    reservoir: int = Field(
        default=10_000,
        ge=100,
        description="Recent transitions that fix the normalization of each version.",
    )
    heldout_share: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="Share of answers no member ever trains on, for held-out accuracy.",
    )
    replicas: int | None = Field(
        default=None,
        ge=1,
        description=(
            "Reward-model actors that label fragments; null: one on every node that has "
            "env runners."
        ),
    )
    device: str = Field(default="cpu", description="Torch device of fitting and labeling.")
    num_gpus: float | None = Field(
        default=None,
        ge=0,
        description=(
            "GPUs reserved by the reward trainer and by each reward model; null: 0.1 on "
            "`cuda`, else none."
        ),
    )


class LearnerConfig(Section):
    """What learns from the rewards, and the keys that every learner has; further ones
    are those of its algorithm.
    """

    algorithm: str = Field(
        default="ppo", description="Which learner; the keys of another one are refused."
    )
    total_env_steps: int = Field(
        default=300_000, ge=1, description="Env steps of the whole run, warm-up included."
    )
    num_learners: int = Field(
        default=0, ge=0, description="Learner actors; 0 learns inside the driver."
    )
    threads: int = Field(
        default=1,
        ge=1,
        description=(
            "Of torch, in the driver: convolutions gain from two, small dense layers do not."
        ),
    )
    num_gpus_per_learner: float = Field(default=0, ge=0, description="GPUs per learner.")
    resources: dict[str, float] = Field(
        default_factory=dict,
        description="Further resources reserved per learner, as `{learner: 1}`.",
    )


class PPOLearnerConfig(LearnerConfig):
    """PPO (Schulman et al. 2017), on RLlib's new API stack."""

    algorithm: Literal["ppo"] = "ppo"
    lr: float = Field(default=1e-3, gt=0, description="Adam's learning rate.")
    lr_final: float | None = Field(
        default=0.0, ge=0, description="Linear schedule to this at the end; null: constant."
    )
    gamma: float = Field(default=0.99, ge=0, le=1, description="Discount.")
    gae_lambda: float = Field(
        default=0.95, ge=0, le=1, description="Lambda of generalized advantage estimation."
    )
    train_batch_size: int = Field(
        default=2048, ge=1, description="Env steps per learner update, over all runners."
    )
    minibatch_size: int = Field(default=128, ge=1, description="Rows per gradient step.")
    num_epochs: int = Field(default=10, ge=1, description="Passes over each batch.")
    clip: float = Field(default=0.2, gt=0, description="PPO's ratio clip.")
    vf_clip: float | None = Field(
        default=None, gt=0, description="Clip of the value loss; null: none."
    )
    vf_coeff: float = Field(default=0.5, ge=0, description="Weight of the value loss.")
    entropy_coeff: float = Field(default=0.0, ge=0, description="Entropy bonus.")
    kl_coeff: float = Field(
        default=0.0, ge=0, description="Starting weight of the KL penalty; 0: none."
    )
    kl_target: float = Field(default=0.01, gt=0, description="KL the penalty aims at.")
    grad_clip: float | None = Field(
        default=0.5, gt=0, description="Global norm of gradients; null: none."
    )
    network: Network = Field(
        default="auto",
        description="`cnn` is that of Mnih et al. 2015, `cnn_coarse` two layers for CPUs, "
        "`cnn_small` two for small "
        "pictures, `mlp` dense layers alone; `auto` goes by what the environment shows.",
    )
    pixels: Literal["scaled", "standardized"] = Field(
        default="scaled",
        description=(
            "What they see of pictures, as `reward.pixels`; pixels are as in the first batch."
        ),
    )
    hidden: Widths = Field(
        default=(64, 64),
        description=(
            "Units of policy and value networks: one for each, or one for both behind convolutions."
        ),
    )
    activation: Literal["tanh", "relu"] = Field(default="tanh", description="Of those networks.")
    log_std_init: float = Field(
        default=-0.5, description="Initial log standard deviation of continuous actions."
    )
    policy_head_scale: float = Field(
        default=0.01,
        gt=0,
        description="Factor on the policy's last layer at the start; 0.01 makes the first actions "
        "centered, so that "
        "the first segments show more than one network's habit.",
    )
    normalize_obs: bool = Field(
        default=True,
        description=(
            "Running mean and std of what the policy sees; pictures are scaled to 0..1 instead."
        ),
    )
    normalize_control_reward: bool = Field(
        default=True,
        description="In the control arm (`source: none`) divide env rewards by their running std; "
        "with "
        "`env.hide_termination` also take away their first mean. Predicted rewards are scaled and "
        "centered alike.",
    )
    rllib: dict[str, Any] = Field(
        default_factory=dict,
        description="Further PPOConfig attributes by name, checked against RLlib.",
    )


LEARNERS: dict[str, type[LearnerConfig]] = {"ppo": PPOLearnerConfig}
"""`learner.algorithm` -> its section."""


class RunConfig(Section):
    """One run."""

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$",
        description="Run name; null: file name and time.",
    )
    runs_dir: str = Field(
        default="runs",
        description="Where run directories are made; a relative path begins at RLHP_HOME, or here.",
    )
    seed: int = Field(
        default=0, ge=0, description="Seeds environments, networks, selection and teachers."
    )
    env: EnvConfig
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    labels: LabelsConfig = Field(default_factory=LabelsConfig)
    page: PageConfig = Field(default_factory=PageConfig)
    query: QueryConfig = Field(default_factory=QueryConfig)
    quality: QualityConfig = Field(default_factory=QualityConfig)
    reward: RewardConfig = Field(default_factory=RewardConfig)
    learner: SerializeAsAny[LearnerConfig] = Field(default_factory=PPOLearnerConfig)
    clips: ClipsConfig = Field(default_factory=ClipsConfig)
    redis: RedisConfig = Field(default_factory=RedisConfig)
    ray: RayConfig = Field(default_factory=RayConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    watch: WatchConfig = Field(default_factory=WatchConfig)
    tensorboard: bool = Field(
        default=True, description="Write TensorBoard events beside metrics.jsonl."
    )

    @field_validator("learner", mode="before")
    @classmethod
    def _by_algorithm(cls, learner: Any) -> Any:
        """A union that `learner.algorithm` tells apart, with a default."""
        if not isinstance(learner, Mapping):
            return learner
        name = learner.get("algorithm", "ppo")
        if isinstance(name, str) and name in LEARNERS:
            return LEARNERS[name].model_validate(learner)
        wrong = InitErrorDetails(
            type="literal_error",
            loc=("algorithm",),
            input=name,
            ctx={"expected": " or ".join(map(repr, LEARNERS))},
        )
        raise ValidationError.from_exception_data("learner", [wrong])

    @model_validator(mode="after")
    def _rules_across_keys(self) -> Self:
        problems = conflicts(self)
        if problems:
            raise RlhpError(" | ".join(problems))
        return self

    @property
    def preferences(self) -> bool:
        """False in the control arm."""
        return self.labels.source != "none"

    @property
    def newest_segments(self) -> int:
        """`query.newest`, resolved."""
        query = self.query
        return query.newest or max(FEWEST_NEWEST, round(NEWEST_STEPS / query.segment_length))

    @property
    def quality_action(self) -> str:
        """What becomes of labelers who seem to guess: none, weigh or pause."""
        return self.quality.action or ("pause" if self.labels.source == "human" else "none")

    @property
    def gold_rate(self) -> float:
        """Checks per answer of a labeler."""
        if self.quality.gold_rate is not None:
            return self.quality.gold_rate
        return 0.05 if self.labels.source == "human" else 0.0

    @property
    def reward_gpus(self) -> float:
        """GPUs of the reward trainer, and of each reward model."""
        if self.reward.num_gpus is not None:
            return self.reward.num_gpus
        return 0.1 if self.reward.device.startswith("cuda") else 0.0

    @property
    def shares_env_reward(self) -> bool:
        """Whether offered segments carry env rewards for a teacher."""
        if self.labels.share_env_reward is not None:
            return self.labels.share_env_reward
        return self.labels.source == "oracle"

    @property
    def keeps_best(self) -> bool:
        """Whether the checkpoint of the highest true return is kept."""
        return (
            self.labels.source != "human"
            if self.checkpoint.keep_best is None
            else self.checkpoint.keep_best
        )

    @property
    def draws_clips(self) -> bool:
        """Whether a query is shown as two clips, and so waits for them."""
        if self.clips.enabled is not None:
            return self.preferences and self.clips.enabled
        return self.labels.source == "human"
