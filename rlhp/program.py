"""Every process of a run and every edge between two of them. No other file knows both
ends of an edge.

    env runner[N] --fragment--> reward model[R] --predicted rewards--> episode --> learner
         | segments                  ^ version v+1         | scores
         v                           |                     v
    query actor --segments--> preferences/ --> reward trainer <--answers-- Redis <--> labeler[L]
         |                                                                   ^
         +---------------------------------query-----------------------------+

env runner      Ray actors of RLlib. Produce fragments, segments and labeled episodes. Wait for
                a reward model; never for the query actor (while one offer is on its way, the
                next is dropped and counted).
reward model    Ray actors, one per node with env runners. Produce predicted rewards stamped
                with their version. Wait for nobody. One gone: Ray restarts it; env runners ask
                another or wait and say so.
query actor     Ray actor. Produces queries over the newest segments. Waits for label budget and
                fewer open queries than `query.max_open`. Redis gone: keeps the newest segments
                and tries again.
labeler         processes. Produce answers under a lease. Gone: the lease runs out; the driver
                starts another.
clip renderer   Ray actor, where people answer. Produces the clips that a query waits for;
                others ask without. Draws in a child process. Gone: Ray restarts it, and what
                was reserved is drawn.
page            a process, where people answer: a labeler like any other. Gone: started again at
                the same address.
reward trainer  Ray actor. Produces reward versions 1, 2, 3, ... Waits for answers. Gone: Ray
                restarts it, and it goes on from its snapshot, the dataset and the answers it
                had not acknowledged.
Redis           a process. Embedded: restarted by its supervisor with all data. External: waited
                for.
learner         this process, or actors of its own. Produces policy versions. Waits for reward
                version 1, then for a full batch at a time. Lost, or silent for too long: built
                anew from the last checkpoint.

They start in the order Redis, reward models, query actor, reward trainer, labelers,
learner; they stop the other way round. `serial` runs the same parts in this one
process, seeded: the debugger and the tutorial.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlhp.config.schema import RunConfig
from rlhp.envs.make import EnvFacts, make_env, probe, variable_length_warning
from rlhp.envs.spaces import Spaces
from rlhp.errors import RlhpError
from rlhp.labeling.teachers import make_teacher
from rlhp.labeling.worker import LabelerWorker
from rlhp.learn.checkpoint import Checkpoints
from rlhp.learn.evaluate import evaluate as play
from rlhp.learn.interface import Learner, MakeAct
from rlhp.learn.registry import algorithm_of
from rlhp.monitor.alarms import Alarms
from rlhp.monitor.alerts import RunMonitor
from rlhp.monitor.console import LiveTable
from rlhp.queue.queue import QueryQueue
from rlhp.reward.client import Replicas
from rlhp.reward.service import RewardModel
from rlhp.rollout.context import RemoteSink
from rlhp.run import recovery
from rlhp.run.children import TeacherProcesses, page_server
from rlhp.run.loop import Loop
from rlhp.run.preflight import check, make_dataset, opened_queue, reconcile, stopping_on_ctrl_c
from rlhp.run.resume import TEACHER, ExactState, Recalled, impossible, said_before, take_back
from rlhp.run.services import ClusterServices, SerialServices, Services
from rlhp.run.summary import Summary, finish
from rlhp.run.throttle import LearnerThrottle
from rlhp.run.videos import PolicyVideos, codec_of, draw, record_episode
from rlhp.storage.metrics import MetricsWriter, read_metrics
from rlhp.storage.rundir import RunDir
from rlhp.system.logs import log_to, told
from rlhp.system.memory import flushed
from rlhp.system.ray import NAMESPACE, hush, ray_cluster
from rlhp.system.roles import (
    CLIP_RENDERER,
    ENV_RUNNER,
    QUERY_ACTOR,
    REWARD_TRAINER,
    actor_name,
    numbered,
    spoken,
)
from rlhp.workers.placement import RewardModels
from rlhp.workers.resources import local_cpus, refuse_too_small
from rlhp.workers.roles import (
    ClipRendererProcess,
    Parts,
    QueryActorProcess,
    RewardTrainerProcess,
    clip_renderer,
    query_actor,
    reward_trainer,
)

log = logging.getLogger(__name__)

LAST_ANSWERS_SECONDS = 20.0
"""How long the end of a run waits for the reward trainer to put the last answers on
disk.
"""


def train(
    config: RunConfig,
    *,
    rundir: RunDir,
    resume: bool = False,
    serial: bool = False,
    take_over: bool = False,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> Summary:
    """Run to the end, or to Ctrl-C, which leaves a checkpoint; the summary says what
    was reached.

    `watch` is handed every row of metrics. `take_over`: the process that ran it last,
    on another host, is dead.
    """
    config = config.model_copy(update={"name": rundir.name})
    if serial:  # else the last bit of a matrix product depends on where in memory its factors lie
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    facts = check(config, resume=resume)
    torch.set_num_threads(config.learner.threads)
    with ExitStack() as stack:
        # from the start, as fits do: a serial run that is resumed computes the same
        stack.enter_context(flushed())
        stack.enter_context(rundir.running(take_over=take_over))
        if resume:  # not before the run is ours: roles of another process would read it
            _refuse_other_algorithm(config, rundir)
            rundir.rewrite_config(config)
        stack.enter_context(log_to(rundir.log_file, run=rundir.name, who="driver"))
        return _run(
            stack,
            config,
            rundir,
            facts,
            resume=resume,
            serial=serial,
            take_over=take_over,
            watch=watch,
        )


def _run(
    stack: ExitStack,
    config: RunConfig,
    rundir: RunDir,
    facts: EnvFacts,
    *,
    resume: bool,
    serial: bool,
    take_over: bool,
    watch: Callable[[dict[str, Any]], None] | None,
) -> Summary:
    """Every role, and the loop that drives them, in a directory that is this process's."""
    display = _display(stack, config, rundir, facts)
    stop = stack.enter_context(stopping_on_ctrl_c(display.message))
    queue = None
    if config.preferences:
        queue = stack.enter_context(
            _asking(config, rundir, facts, resume=resume, take_over=take_over, say=display.message)
        )
    metrics = stack.enter_context(MetricsWriter(rundir, tensorboard=config.tensorboard))
    build = _serial if serial else _distributed
    make_learner, services, exact = stack.enter_context(
        build(config, rundir, facts, queue, display.message)
    )
    alarms = Alarms(config) if config.preferences else None
    monitor = RunMonitor(
        rundir,
        say=display.message,
        quiet_seconds=config.watch.quiet_seconds,
        alarms=alarms,
        also=watch,
    )
    stack.enter_context(monitor)
    learner, pace = make_learner(), None
    if isinstance(services, ClusterServices):  # a serial run steps everybody until all is done
        pace = LearnerThrottle(
            config, services, stop, turn_steps=learner.turn_steps, say=display.message
        )
    loop = Loop(
        config,
        rundir,
        learner,
        services,
        metrics,
        display,
        stop,
        videos=PolicyVideos(config, rundir, facts, say=display.message),
        watch=monitor.look,
        exact=exact,
        watchdog=stack.enter_context(recovery.watchdog(config, services, serial=serial)),
        pace=pace,
    )
    if resume:
        _restore(loop, alarms, rundir, display)
    recovery.run(loop, make_learner)
    if stop.is_set():
        rundir.update(state="interrupted")
    return finish(loop, interrupted=stop.is_set())


def _refuse_other_algorithm(config: RunConfig, rundir: RunDir) -> None:
    """Before the run directory says that it is one of another."""
    newest = Checkpoints(rundir.checkpoints, keep=1).newest()
    if newest is not None:
        Checkpoints.refuse_other(newest, config.learner.algorithm)


def _display(stack: ExitStack, config: RunConfig, rundir: RunDir, facts: EnvFacts) -> LiveTable:
    """The live table, until the stack is left, with what is to be known beforehand said."""
    display = LiveTable(config=config, rundir=rundir)
    stack.callback(display.close)
    for line in facts.warnings:
        display.message(line)
    told_of = ("rlhp.queue.runs", "rlhp.reward.versions", "rlhp.learn.checkpoint")
    stack.enter_context(told(display.message, *told_of))
    if config.preferences and (warning := variable_length_warning(facts)):
        display.message(warning)
    if config.preferences and config.labels.budget == 0 and config.labels.reuse is None:
        display.message(
            "labels.budget=0: an untrained reward ensemble rewards the policy; nothing is asked"
        )
    return display


def _restore(loop: Loop, alarms: Alarms | None, rundir: RunDir, display: LiveTable) -> None:
    """Go back to the newest checkpoint, and to what the alarms had seen."""
    if not loop.restore():
        display.message("no checkpoint yet: the policy starts anew, with all answers given so far")
    if alarms is not None:
        with suppress(ValueError):  # a damaged row is said where it is read for its own sake
            alarms.recall(read_metrics(rundir.metrics_file))


def evaluate(
    rundir: RunDir,
    *,
    episodes: int,
    explore: bool,
    seed: int,
    video: Path | None = None,
    best: bool = False,
) -> dict[str, Any]:
    """The true return of a run's newest saved policy (or its best), and a video;
    ValueError where there is none.
    """
    hush()
    config = rundir.config()
    if video is not None:
        codec_of(config.clips, video)
    newest = _checkpoint(rundir, best=best)
    facts = probe(config.env)
    _, make_act = _acting(newest, config, facts, explore=explore, seed=seed)
    played = play(make_act, config.env, episodes=episodes, seed=seed)
    if video is not None:
        env_steps = int(Checkpoints.counters(newest)["env_steps"])
        draw(
            record_episode(make_act, config, rundir, facts, env_steps=env_steps, seed=seed),
            config,
            video,
        )
    return {
        "checkpoint": newest.name,
        "episodes": len(played.returns),
        "true_return_mean": played.mean,
        "true_return_std": played.std,
        "episode_length_mean": sum(played.lengths) / len(played.lengths),
        **({} if video is None else {"video": str(video)}),
    }


Built = Iterator[tuple[Callable[[], Learner], Services | None, ExactState | None]]
Say = Callable[[str], None]


@contextmanager
def _asking(
    config: RunConfig, rundir: RunDir, facts: EnvFacts, *, resume: bool, take_over: bool, say: Say
) -> Iterator[QueryQueue]:
    """The run's queue, level with what is on disk, and the page where people answer."""
    with ExitStack() as stack:
        opened = opened_queue(config, rundir, facts, resume=resume, take_over=take_over, say=say)
        queue = stack.enter_context(opened)
        dataset = make_dataset(config, rundir, facts)
        if resume:
            reconcile(queue, dataset, say=say)
        if config.labels.source == "human":
            stack.enter_context(page_server(config.page, rundir, queue, say=say))
        yield queue


@contextmanager
def _serial(
    config: RunConfig, rundir: RunDir, facts: EnvFacts, queue: QueryQueue | None, say: Say
) -> Built:
    """All parts in this process: twice the same seed and name give identical numbers,
    and so does a resume.
    """
    config = config.model_copy(
        update={"rollout": config.rollout.model_copy(update={"num_env_runners": 0})}
    )
    with ray_cluster(config, cpus=1), ExitStack() as stack:
        newest, repeatable = Checkpoints.of(config, rundir).fetch(), impossible(config) is None
        # One that was killed before it did anything is as good as new.
        begun = rundir.info().resumed if newest is not None or rundir.has_rows else 0
        learner = _learner(config, facts, begun=begun)
        point = take_back(config, rundir, newest, learner, queue, say=say) if repeatable else None
        services, asking, fitting = None, None, None
        if queue is not None:
            # a role has a dataset of its own
            of_asking, of_fitting = (Parts(rundir.path, exact=True) for _ in range(2))
            newest_weights = of_fitting.store.newest
            model = RewardModel(facts.spaces, newest=newest_weights, device=config.reward.device)
            asking = query_actor(of_asking, queue, reward=model)
            fitting = reward_trainer(of_fitting, queue, recent=asking.recent, publish=model.load)
            worker = None
            if config.labels.source == "oracle":
                teacher = Recalled(
                    make_teacher(config.labels.teacher, seed=config.seed), said_before(rundir)
                )
                worker = LabelerWorker(queue, teacher, name=TEACHER)
            clips = clip_renderer(config, queue) if config.draws_clips else None
            services = SerialServices(queue, asking, fitting, worker, clips)
            if clips is not None:
                stack.callback(clips.close)
            learner.connect(model, asking)
        exact = ExactState(
            config, rundir, learner, queue=queue, asking=asking, fitting=fitting, point=point
        )
        try:
            yield lambda: learner, services, exact if repeatable else None
        finally:
            learner.stop()


@contextmanager
def _distributed(
    config: RunConfig, rundir: RunDir, facts: EnvFacts, queue: QueryQueue | None, say: Say
) -> Built:
    """Every part as a process of its own."""
    with ray_cluster(config, cpus=local_cpus(config)), ExitStack() as stack:
        refuse_too_small(config, say=say)
        services = None
        if queue is not None:
            services = _start_services(config, rundir, facts, queue, stack)
        present = stack.enter_context(ExitStack())

        def make() -> Learner:
            present.close()
            info = rundir.info()
            learner = _learner(config, facts, begun=info.resumed + info.restarts)
            present.callback(_stop, learner)
            if services is not None and config.rollout.num_env_runners == 0:
                # which samples inside this process, and is no actor of its own
                learner.connect(_replicas(rundir), RemoteSink(rundir.name))
            if services is not None:
                services.settle(learner.nodes())
            return learner

        yield make, services, None


def policy_of(
    rundir: RunDir, *, best: bool, explore: bool, seed: int
) -> tuple[Spaces, Any, MakeAct]:
    """Spaces, action space and policy of a run; RlhpError where there is no checkpoint."""
    hush()
    config = rundir.config()
    facts = probe(config.env)
    return facts.spaces, *_acting(
        _checkpoint(rundir, best=best), config, facts, explore=explore, seed=seed
    )


def _checkpoint(rundir: RunDir, *, best: bool) -> Path:
    checkpoints = Checkpoints.of(rundir.config(), rundir)
    found = checkpoints.best() if best else checkpoints.newest()
    if found is None:
        raise RlhpError(
            f"{rundir.path}: no checkpoint yet, so there is no policy to play; let the run go on"
        )
    Checkpoints.refuse_other(found, rundir.config().learner.algorithm)
    return found


def _acting(
    checkpoint: Path, config: RunConfig, facts: EnvFacts, *, explore: bool, seed: int
) -> tuple[Any, MakeAct]:
    action_space = _action_space(config)
    make_act = algorithm_of(config).load_policy(
        Checkpoints.policy(checkpoint),
        config,
        facts.spaces,
        action_space=action_space,
        explore=explore,
        seed=seed,
    )
    return action_space, make_act


def _stop(learner: Learner) -> None:
    try:
        learner.stop()
    except Exception:  # of one that lost its actors; nothing of it is needed any more
        log.warning("the learner did not stop cleanly", exc_info=True)


def _start_services(
    config: RunConfig, rundir: RunDir, facts: EnvFacts, queue: QueryQueue, stack: ExitStack
) -> ClusterServices:
    name, path = rundir.name, str(rundir.path)
    # Beside this process: they share its disk and, where that is embedded, its Redis.
    # The cluster needs neither.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    beside: dict[str, Any] = {
        "num_cpus": 0, "max_restarts": -1, "namespace": NAMESPACE, "scheduling_strategy": here
    }  # fmt: skip

    def start(kind: type, called: str, *, gpus: float = 0.0) -> Any:
        actor_class = ray.remote(num_gpus=gpus, **beside)(kind)
        return actor_class.options(name=called).remote(path, owner=queue.owner)

    models = RewardModels(config, rundir, facts.spaces)
    asking = start(QueryActorProcess, actor_name(name, QUERY_ACTOR))
    ray.get(asking.status.remote())
    fitting = start(RewardTrainerProcess, actor_name(name, REWARD_TRAINER), gpus=config.reward_gpus)
    ray.get(fitting.status.remote())
    clips = None
    if config.draws_clips:
        clips = start(ClipRendererProcess, actor_name(name, CLIP_RENDERER))

    def end(kind: Any, *_: Any) -> None:
        if kind is None:
            with suppress(RayError):  # being restarted: the last answers wait in Redis for a resume
                ray.get(fitting.finish.remote(), timeout=LAST_ANSWERS_SECONDS)
        for actor in (fitting, asking, *([clips] if clips else [])):
            ray.kill(actor)
        models.stop()

    stack.push(end)
    labelers = None
    if config.labels.source == "oracle" and config.labels.labelers > 0:
        labelers = TeacherProcesses(rundir, count=config.labels.labelers)
        stack.callback(labelers.stop)
    return ClusterServices(
        queue, asking, fitting, models, labelers, clips, stall_seconds=config.ray.stall_seconds
    )


def _replicas(rundir: RunDir) -> Replicas:
    """The reward models, for an env runner inside this process."""
    return Replicas(rundir.name, favorite=0, who=spoken(numbered(ENV_RUNNER, 0)))


def _learner(config: RunConfig, facts: EnvFacts, *, begun: int) -> Learner:
    return algorithm_of(config).build(
        config, facts.spaces, action_space=_action_space(config), begun=begun
    )


def _action_space(config: RunConfig) -> Any:
    env = make_env(config.env)
    try:
        return env.action_space
    finally:
        env.close()  # type: ignore[no-untyped-call]
