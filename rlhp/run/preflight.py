"""What a run needs before its first process: everything that can be refused is refused
here.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.envs.make import EnvFacts, probe
from rlhp.errors import RlhpError
from rlhp.labeling.clips.views import check_drawable
from rlhp.labeling.teachers import make_teacher
from rlhp.learn.registry import algorithm_of
from rlhp.models.architecture import Architecture
from rlhp.models.ensemble import build, usable_device
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.preferences.reuse import merge_into, refuse
from rlhp.query.selection import make_selection
from rlhp.queue.clips import Folder
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.lookup import recollection
from rlhp.queue.queue import QueryQueue
from rlhp.reward.versions import RewardStore
from rlhp.run.leftovers import nothing_left, refuse_renamed
from rlhp.storage import credentials
from rlhp.storage.lease import Owner, TakenOver, beating
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from rlhp.system.ray import refuse_silence

log = logging.getLogger(__name__)


def check(config: RunConfig, *, resume: bool = False) -> EnvFacts:
    """The facts of the environment; ValueError for whatever cannot work, before
    anything was started or written.

    With `resume` nothing is said about answers to reuse: the run has its copies
    already.
    """
    facts = probe(config.env)
    algorithm = algorithm_of(config)
    algorithm.check_spaces(config, facts.spaces)
    algorithm.check_settings(config)
    if config.ray.address is not None:
        refuse_silence(config.ray.address)
    if config.preferences:
        _check_preferences(config, facts)
        if config.labels.reuse is not None and not resume:
            refuse(
                config.labels.reuse, spaces=facts.spaces, segment_length=config.query.segment_length
            )
    return facts


def _check_preferences(config: RunConfig, facts: EnvFacts) -> None:
    if config.query.segment_length > facts.episode_limit:
        raise RlhpError(
            f"query.segment_length={config.query.segment_length} is longer than any episode of "
            f"{config.env.id} ({facts.episode_limit} steps), so no full segment could ever be "
            "cut; shorten the segment"
        )
    make_selection(config.query.selection)
    if config.draws_clips:
        _check_clips(config, facts)
    build(Architecture.of(config.reward, spaces=facts.spaces), generator=torch.Generator())
    if config.ray.address is None:  # another machine may have the device that this one lacks
        usable_device(config.reward.device)
    if config.labels.source == "oracle":
        make_teacher(config.labels.teacher, seed=config.seed)
        if ":" not in config.labels.teacher.name and not config.shares_env_reward:
            raise RlhpError(
                f"the built-in teacher {config.labels.teacher.name!r} judges by env rewards, which "
                "labels.share_env_reward=false keeps from it; leave that key out, or name a "
                "teacher of your own"
            )


def _check_clips(config: RunConfig, facts: EnvFacts) -> None:
    way = check_drawable(config.env)
    if config.clips.store is not None:
        Folder(config.clips.store, "check")
    if (
        way in ("state", "mujoco", "lander")
        and facts.native_vector
        and config.rollout.vectorize == "native"
    ):
        raise RlhpError(
            f"rollout.vectorize=native steps {config.env.id} by its own vector implementation, "
            "which tells no states to draw clips from; set rollout.vectorize=auto"
        )


@contextmanager
def opened_queue(
    config: RunConfig,
    rundir: RunDir,
    facts: EnvFacts,
    *,
    resume: bool,
    take_over: bool = False,
    say: Callable[[str], object] = print,
) -> Iterator[QueryQueue]:
    """The run's queue, on an embedded server unless the config or the environment names
    another.

    It is this process's, as `QueryQueue.open` has it. Closed at the end, when all
    answers are on disk, which sends its labelers home; answers that come later wait for
    a resume.
    """
    with ExitStack() as stack:
        url = credentials.address(config.redis)
        embedded = url is None
        if url is None:
            url = stack.enter_context(EmbeddedRedis(rundir.redis, durable=config.redis.durable)).url
        refuse_renamed(url, rundir)
        queue = stack.enter_context(
            QueryQueue(
                url,
                run=rundir.name,
                lease_seconds=config.query.lease_seconds,
                connect_timeout_seconds=config.redis.connect_timeout_seconds,
            )
        )
        queue.open(
            cap=config.query.max_open,
            budget=config.labels.budget,
            config_sha256=loading.sha256(config),
            info=_known_to_labelers(config, facts),
            resume=resume,
            owner=rundir.lease.owner or Owner.here(rundir.path),
            run_id=rundir.info().id,
            take_over=take_over,
            say=say,
        )
        rundir.update(name=rundir.name)
        if embedded:
            rundir.forget_redis_url()
        else:
            rundir.write_redis_url(url)
        try:
            with (
                beating(queue.beat, name="owner of the queue"),
                nothing_left(queue, rundir, say=say),
            ):
                yield queue
        finally:
            with suppress(ConnectionError, TakenOver):
                queue.close()


def _known_to_labelers(config: RunConfig, facts: EnvFacts) -> dict[str, str]:
    """What pages and labeling programs read of a run at its queue."""
    return {
        "env": config.env.id,
        "source": config.labels.source,
        "fps": str(config.clips.fps or facts.fps),
        "keep_ms": str(round(config.clips.keep_minutes * 60_000)),
        "shares_env_reward": "yes" if config.shares_env_reward else "no",
        "instruction": config.labels.instruction,
        "strength": "yes" if config.page.strength else "no",
        "budget": str(config.labels.budget),
        "lease_seconds": str(config.query.lease_seconds),
    }


def make_dataset(config: RunConfig, rundir: RunDir, facts: EnvFacts) -> PreferenceDataset:
    """The preference dataset of a new run, with what it reuses; a resumed run has one,
    which must be readable.
    """
    if (rundir.preferences / "dataset.json").exists():
        RewardStore(rundir.path / "reward").newest()
        return PreferenceDataset.open(rundir.preferences)
    if answered := max(
        (row.get("labels/answered") or 0 for row in read_metrics(rundir.metrics_file)), default=0
    ):
        raise RlhpError(
            f"{rundir.preferences} is gone, and {answered:.0f} answers of this run with it: put "
            "the directory back, or begin a new run; a run that went on without would ask people "
            "again"
        )
    dataset = PreferenceDataset.create(
        rundir.preferences,
        header={
            "run_ids": [rundir.name],
            "env": config.env.model_dump(),
            "spaces": facts.spaces,
            "segment_length": config.query.segment_length,
            "config_sha256": loading.sha256(config),
            "teacher": config.labels.teacher.model_dump()
            if config.labels.source == "oracle"
            else None,
        },
    )
    if config.labels.reuse is not None:
        merge_into(dataset, config.labels.reuse)
    return dataset


def reconcile(
    queue: QueryQueue, dataset: PreferenceDataset, *, say: Callable[[str], object]
) -> None:
    """A Redis that came back older than the disk, or empty, learns what is answered:
    nobody is asked again.
    """
    forgotten = queue.forgotten()
    behind = queue.recall(
        recollection(row for row in dataset.events() if row.query_id not in forgotten)
    )
    if behind:
        text = (
            f"Redis is older than the disk: it did not know what became of {behind} queries, "
            "and was told"
        )
        log.warning(text)
        say(f"warning: {text}")


@contextmanager
def stopping_on_ctrl_c(say: Callable[[str], None]) -> Iterator[threading.Event]:
    """The first Ctrl-C (or SIGTERM) ends the run after the present iteration, the
    second at once.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say("stopping after this iteration, with a checkpoint; Ctrl-C again stops at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
