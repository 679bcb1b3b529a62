"""Rules across keys: combinations that cannot work, each with its mechanism and its way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhp.config import RunConfig
    from rlhp.configcluster import RedisConfig


def conflicts(config: RunConfig) -> list[str]:
    """One line per broken rule."""
    problems = []
    limit = config.env.max_episode_steps
    if config.preferences and limit is not None and config.query.segment_length > limit:
        problems.append(
            f"query.segment_length={config.query.segment_length} is longer than any episode "
            f"(env.max_episode_steps={limit}), so no full segment could ever be cut; shorten the segment"
        )
    if config.labels.source == "oracle" and config.labels.budget > 0 and config.labels.labelers == 0:
        problems.append(
            f"labels.budget={config.labels.budget} with labels.labelers=0 and labels.source=oracle: nobody would "
            "answer; set labels.labelers=1, or labels.source=human to wait for labelers from elsewhere"
        )
    if config.query.selection == "disagreement" and config.reward.members < 2 and config.preferences:
        problems.append(
            "query.selection=disagreement needs at least two members: with one, every pair scores zero. Got "
            f"reward.members={config.reward.members}; set reward.members=3 or query.selection=random"
        )
    wanted, least = config.rollout.num_env_runners, config.rollout.min_env_runners
    if least is not None and least > wanted:
        problems.append(
            f"rollout.min_env_runners={least} cannot exceed rollout.num_env_runners={wanted}: a run starts with the "
            "former and grows to the latter"
        )
    for section, instead in (
        ("rollout", "rollout.num_cpus_per_env_runner"),
        ("learner", "learner.num_gpus_per_learner"),
    ):
        taken = sorted({"CPU", "GPU"} & getattr(config, section).resources.keys())
        if taken:
            problems.append(
                f"{section}.resources={getattr(config, section).resources} names {taken[0]}, which has a key of its "
                f"own; set {instead}"
            )
    if config.reward.l2_low >= config.reward.l2_high:
        problems.append(
            f"reward.l2_low={config.reward.l2_low} must be below reward.l2_high={config.reward.l2_high}, or the "
            "penalty grows and shrinks at once"
        )
    if config.learner.minibatch_size > config.learner.train_batch_size:
        problems.append(
            f"learner.minibatch_size={config.learner.minibatch_size} cannot exceed "
            f"learner.train_batch_size={config.learner.train_batch_size}"
        )
    if config.reward.loss == "regression" and not config.shares_env_reward and config.preferences:
        problems.append("reward.loss=regression fits true returns, so it needs labels.share_env_reward=true")
    if config.labels.source == "human" and config.labels.budget == 0 and config.labels.reuse is None:
        problems.append(
            "labels.budget=0 with labels.source=human and without labels.reuse: nobody would ever be asked; give a "
            "budget, or name a run to reuse"
        )
    problems += _address_conflicts(config.redis)
    labels = config.labels
    if config.preferences and labels.budget > 0 and labels.initial_queries == 0 and labels.reuse is None:
        problems.append(
            f"labels.initial_share={labels.initial_share} asks nothing before learning, so reward version 1 could "
            "never be fitted; raise it"
        )
    return problems


def _address_conflicts(redis: RedisConfig) -> list[str]:
    """What an address of Redis and the keys beside it cannot say together."""
    problems = []
    tls = {name: value for name in ("ca_file", "cert_file", "key_file") if (value := getattr(redis, name)) is not None}
    if tls and redis.url is not None and not redis.url.startswith("rediss://"):
        problems.append(
            f"redis.{next(iter(tls))}={next(iter(tls.values()))} is for an encrypted connection; set redis.url to an "
            "address that starts with rediss://"
        )
    if (redis.cert_file is None) != (redis.key_file is None):
        problems.append(
            f"redis.cert_file={redis.cert_file} and redis.key_file={redis.key_file} go together: a certificate is "
            "of no use without its key; give both or neither"
        )
    return problems
