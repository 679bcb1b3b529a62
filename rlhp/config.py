"""Every knob of a run: typed, with its unit and meaning beside it. YAML in, all errors at once.

Each field's description is the documentation: docs/configuration.md is generated from here. Files
and `--set` are read by `rlhp.configfile`.
"""

from __future__ import annotations

from textwrap import shorten
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from rlhp.configcluster import RayConfig, RedisConfig
from rlhp.configenv import AtariConfig, EnvConfig
from rlhp.configkeeping import CheckpointConfig, EvaluationConfig, WatchConfig
from rlhp.configlabeling import ClipsConfig, LabelsConfig, PageConfig, QualityConfig, Section, TeacherConfig
from rlhp.configrules import conflicts
from rlhp.convolution import Network
from rlhp.errors import RlhpError

__all__ = [  # those of rlhp.configcluster, configenv, configkeeping and configlabeling too
    "AtariConfig", "CheckpointConfig", "ClipsConfig", "EnvConfig", "EvaluationConfig", "LabelsConfig", "LearnerConfig",
    "PageConfig", "QualityConfig", "QueryConfig", "RayConfig", "RedisConfig", "RewardConfig", "RolloutConfig",
    "RunConfig", "Section", "TeacherConfig", "WatchConfig",
]  # fmt: skip

Positive = Field(gt=0)
WIDEST = 65_536


def _layers(widths: tuple[int, ...]) -> tuple[int, ...]:
    if len(widths) > 64 or not all(1 <= width <= WIDEST for width in widths):
        raise ValueError(
            f"at most 64 layers of 1 to {WIDEST} units each, got {shorten(str(list(widths)), 60)}; correct it"
        )
    return widths


Widths = Annotated[tuple[int, ...], AfterValidator(_layers)]
"""Units of the hidden layers of a network."""
NEWEST_STEPS, FEWEST_NEWEST = 4000, 50


class RolloutConfig(Section):
    """Env runners: Ray actors that step environments and ask for predicted rewards."""

    num_env_runners: int = Field(default=2, ge=0, le=10_000, description="Ray actors; 0 samples inside the driver.")
    num_envs_per_env_runner: int = Field(
        default=8, ge=1, le=100_000, description="Environments stepped together by one runner."
    )
    vectorize: Literal["auto", "sync", "native"] = Field(
        default="auto",
        description="`native` uses the environment's own vector implementation, `auto` where it exists "
        "and no clips are drawn from states.",
    )
    num_cpus_per_env_runner: float = Field(default=1, ge=0, description="CPUs reserved per runner.")
    min_env_runners: int | None = Field(
        default=None,
        ge=1,
        description="Start with as few as this, and let the others join when the cluster has room; null: all at once.",
    )
    resources: dict[str, float] = Field(
        default_factory=dict, description="Further resources reserved per runner, as `{rollout: 1}`."
    )
    label_timeout_seconds: float = Field(
        default=60, gt=0, description="Longest wait for one reward-model replica before another is tried."
    )
    segments_per_fragment: int = Field(
        default=64, ge=1, description="Most segments one runner offers to the query actor per fragment."
    )


class QueryConfig(Section):
    """Which pairs are worth asking about."""

    segment_length: int = Field(default=30, ge=1, description="K, steps per segment.")
    pool: int = Field(default=1000, ge=2, le=10_000_000, description="Newest segments kept as candidates.")
    newest: int | None = Field(
        default=None,
        ge=2,
        description="One segment of each pair is among this many newest ones, the other any of the pool. null: those "
        "of the newest 4,000 env steps, at least 50.",
    )
    selection: str = Field(
        default="disagreement",
        description="`random`, `disagreement` (variance of the members' P(first preferred)), or `package.module:Name`.",
    )
    random_share: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="Share of the pairs that is drawn at random beside the chosen ones: fresh accuracy is over these, "
        "so that it is about what the policy does and not about what was chosen.",
    )
    candidate_factor: int = Field(default=10, ge=1, description="Random candidate pairs per query asked.")
    max_open: int = Field(default=200, ge=1, description="Most queries waiting for an answer at a time.")
    lease_seconds: float = Field(default=60, gt=0, description="A query not answered by then goes to somebody else.")


class RewardConfig(Section):
    """The reward ensemble and how it is fitted (Christiano et al. 2017, sections 2.2.1 and 2.2.3)."""

    members: int = Field(default=5, ge=1, le=1000, description="M, size of the ensemble (3 in the paper).")
    network: Network = Field(
        default="auto",
        description="`cnn` is the paper's for Atari, with batch normalisation, `cnn_coarse` two layers for CPUs, "
        "`cnn_small` two for small pictures, `mlp` dense layers alone; `auto` goes by what the environment shows.",
    )
    pixels: Literal["scaled", "standardized"] = Field(
        default="scaled",
        description="What the networks see of pictures: bytes as 0 to 1, or each pixel less its mean, over its "
        "standard deviation, as they were when fitting began.",
    )
    hidden: Widths = Field(
        default=(64, 64), description="Units per hidden layer; after the convolutions where there are some."
    )
    activation: Literal["silu", "leaky_relu", "relu", "tanh"] = Field(
        default="silu",
        description="Between dense layers; networks for pictures have leaky ReLU, as the paper's.",
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Dropout while fitting: on hidden layers, or on whole filters of convolutions (0.5 for Atari).",
    )
    use_action: bool | Literal["auto"] = Field(
        default="auto",
        description="r(obs, action) rather than r(obs). `auto`: both are fitted, and each version is the one that "
        "predicts answers better which it was not fitted to; r(obs) for pictures, r(obs, action) without `bootstrap`.",
    )
    module: str | None = Field(
        default=None,
        description="`package.module:Name` of an nn.Module, forward(obs, actions) -> rewards, one instance per member.",
    )
    module_kwargs: dict[str, Any] = Field(default_factory=dict, description="Passed to that module.")
    loss: Literal["preference", "regression"] = Field(
        default="preference",
        description="Bradley-Terry, or the paper's `target` ablation: regression on the segment's true return.",
    )
    error_rate: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of answers taken to be given at random (0.1 in the paper). With it a network that is sure "
        "of the opposite learns nothing from the answer that says so.",
    )
    bootstrap: bool = Field(
        default=True, description="Each member trains on its own draw with replacement and validates on the rest."
    )
    optimizer: Literal["adam", "rmsprop"] = Field(default="adam", description="Of the ensemble.")
    lr: float = Field(default=3e-3, gt=0, description="Learning rate of the ensemble.")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="Momentum of Adam; 0 for a fast-moving target.")
    batch_size: int = Field(default=32, ge=1, description="Preferences per gradient step and member.")
    l2: float = Field(default=3e-3, ge=0, description="Weight of the L2 penalty, at the start where it adapts.")
    l2_adaptive: bool = Field(
        default=False, description="Keep validation loss between `l2_low` and `l2_high` times training loss."
    )
    l2_low: float = Field(default=1.1, gt=0, description="Below this ratio the penalty shrinks.")
    l2_high: float = Field(default=1.5, gt=0, description="Above this ratio the penalty grows.")
    pretrain_epochs: int = Field(default=50, ge=1, description="Passes over the initial answers before version 1.")
    early_stop_epochs: int = Field(
        default=0,
        ge=0,
        description="Stop pretraining after this many epochs without a better validation loss; 0: never.",
    )
    label_uses_per_step: float | None = Field(
        default=None,
        ge=0,
        description="Most preferences fed to each member per env step, after pretraining; less where the answers are "
        "explained. null: 25 steps of segments per env step, or 0.6 uses of segments of 20 steps; 0.1 with pictures.",
    )
    publish_every_steps: int = Field(default=2048, ge=1, description="Env steps between reward versions.")
    max_lag_steps: int | None = Field(
        default=None,
        ge=1,
        description="The learner waits for fits of answers that have arrived, and for teachers that are programs, once "
        "they are this many env steps behind; for people it never waits. null: one batch (`learner.train_batch_size`).",
    )
    target_std: float = Field(
        default=0.1,
        gt=0,
        description="Standard deviation of predicted rewards (1 in the paper, 0.05 for Atari). PPO's value network "
        "starts at zero and has to reach the return, which rewards of 1 put at a hundred.",
    )
    center: Literal["recent", "carried"] = Field(
        default="carried",
        description="Mean predicted reward of recent transitions at a new version: 0 as in the paper, or what the "
        "version before gave them, so that the value network's returns stay true.",
    )
    reservoir: int = Field(
        default=10_000, ge=100, description="Recent transitions that fix the normalisation of each version."
    )
    heldout_share: float = Field(
        default=0.0, ge=0, lt=0.5, description="Share of answers no member ever trains on, for held-out accuracy."
    )
    replicas: int | None = Field(
        default=None,
        ge=1,
        description="Reward-model actors that label fragments; null: one on every node that has env runners.",
    )
    device: str = Field(default="cpu", description="Torch device of fitting and labelling.")
    num_gpus: float | None = Field(
        default=None,
        ge=0,
        description="GPUs reserved by the reward trainer and by each reward model; null: 0.1 on `cuda`, else none.",
    )


class LearnerConfig(Section):
    """The RLlib learner: PPO on the new API stack."""

    total_env_steps: int = Field(default=300_000, ge=1, description="Env steps of the whole run, warm-up included.")
    lr: float = Field(default=1e-3, gt=0, description="Adam's learning rate.")
    lr_final: float | None = Field(default=0.0, ge=0, description="Linear schedule to this at the end; null: constant.")
    gamma: float = Field(default=0.99, ge=0, le=1, description="Discount.")
    gae_lambda: float = Field(default=0.95, ge=0, le=1, description="Lambda of generalised advantage estimation.")
    train_batch_size: int = Field(default=2048, ge=1, description="Env steps per learner update, over all runners.")
    minibatch_size: int = Field(default=128, ge=1, description="Rows per gradient step.")
    num_epochs: int = Field(default=10, ge=1, description="Passes over each batch.")
    clip: float = Field(default=0.2, gt=0, description="PPO's ratio clip.")
    vf_clip: float | None = Field(default=None, gt=0, description="Clip of the value loss; null: none.")
    vf_coeff: float = Field(default=0.5, ge=0, description="Weight of the value loss.")
    entropy_coeff: float = Field(default=0.0, ge=0, description="Entropy bonus.")
    kl_coeff: float = Field(default=0.0, ge=0, description="Starting weight of the KL penalty; 0: none.")
    kl_target: float = Field(default=0.01, gt=0, description="KL the penalty aims at.")
    grad_clip: float | None = Field(default=0.5, gt=0, description="Global norm of gradients; null: none.")
    network: Network = Field(
        default="auto",
        description="`cnn` is that of Mnih et al. 2015, `cnn_coarse` two layers for CPUs, `cnn_small` two for small "
        "pictures, `mlp` dense layers alone; `auto` goes by what the environment shows.",
    )
    pixels: Literal["scaled", "standardized"] = Field(
        default="scaled", description="What they see of pictures, as `reward.pixels`; pixels are as in the first batch."
    )
    hidden: Widths = Field(
        default=(64, 64),
        description="Units of policy and value networks: one for each, or one for both behind convolutions.",
    )
    activation: Literal["tanh", "relu"] = Field(default="tanh", description="Of those networks.")
    log_std_init: float = Field(default=-0.5, description="Initial log standard deviation of continuous actions.")
    policy_head_scale: float = Field(
        default=0.01,
        gt=0,
        description="Factor on the policy's last layer at the start; 0.01 makes the first actions centred, so that the "
        "first segments show more than one network's habit.",
    )
    normalize_obs: bool = Field(
        default=True, description="Running mean and std of what the policy sees; pictures are scaled to 0..1 instead."
    )
    normalize_control_reward: bool = Field(
        default=True,
        description="In the control arm (`source: none`) divide env rewards by their running std; with "
        "`env.hide_termination` also take away their first mean. Predicted rewards are scaled and centred alike.",
    )
    num_learners: int = Field(default=0, ge=0, description="Learner actors; 0 learns inside the driver.")
    threads: int = Field(
        default=1, ge=1, description="Of torch, in the driver: convolutions gain from two, small dense layers do not."
    )
    num_gpus_per_learner: float = Field(default=0, ge=0, description="GPUs per learner.")
    resources: dict[str, float] = Field(
        default_factory=dict, description="Further resources reserved per learner, as `{learner: 1}`."
    )
    rllib: dict[str, Any] = Field(
        default_factory=dict, description="Further PPOConfig attributes by name, checked against RLlib."
    )


class RunConfig(Section):
    """One run."""

    name: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$", description="Run name; null: file name and time."
    )
    runs_dir: str = Field(
        default="runs", description="Where run directories are made; a relative path begins at RLHP_HOME, or here."
    )
    seed: int = Field(default=0, ge=0, description="Seeds environments, networks, selection and teachers.")
    env: EnvConfig
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    labels: LabelsConfig = Field(default_factory=LabelsConfig)
    page: PageConfig = Field(default_factory=PageConfig)
    query: QueryConfig = Field(default_factory=QueryConfig)
    quality: QualityConfig = Field(default_factory=QualityConfig)
    reward: RewardConfig = Field(default_factory=RewardConfig)
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    clips: ClipsConfig = Field(default_factory=ClipsConfig)
    redis: RedisConfig = Field(default_factory=RedisConfig)
    ray: RayConfig = Field(default_factory=RayConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    watch: WatchConfig = Field(default_factory=WatchConfig)
    tensorboard: bool = Field(default=True, description="Write TensorBoard events beside metrics.jsonl.")

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
        return self.labels.source != "human" if self.checkpoint.keep_best is None else self.checkpoint.keep_best

    @property
    def draws_clips(self) -> bool:
        """Whether a query is shown as two clips, and so waits for them."""
        if self.clips.enabled is not None:
            return self.preferences and self.clips.enabled
        return self.labels.source == "human"
