"""The command line. Every command imports what it needs when it runs, so that `rlhp
--help` is quick.

Exit codes: 0 done, 1 a check found something, a labeler gave up, answers could not be
stored or the fault is ours, 2 a mistake that one line explains, 130 stopped by Ctrl-C.
RLHP_TRACEBACK=1 shows where an error came from.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlhp.cli import cluster, data, labeling
from rlhp.cli.terminal import outliving
from rlhp.errors import curable, one_line, root
from rlhp.system.logs import log_with_traceback

if TYPE_CHECKING:
    from rlhp.config.schema import RunConfig, TeacherConfig
    from rlhp.storage.rundir import RunDir

INTERRUPTED = 130
MISTAKE = 2
OURS = NOT_ALL = 1

_GO_ON = ("train", "compare", "tune", "label", "serve")
"""Commands that do their work whether anybody reads what they print or not."""

SEED = click.IntRange(0, 2**53)
"""Seeds are what the key `seed` of a config takes."""

_run = click.argument("run", type=click.Path(path_type=Path))


def _say_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from importlib import metadata

    from rlhp.storage.provenance import CHECKOUT

    try:
        version = metadata.version("rlhp")
    except metadata.PackageNotFoundError:
        version = f"is not installed: it runs from the checkout in {CHECKOUT}"
    click.echo(f"rlhp {version}")
    context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_say_version,
    help="The version.",
)
def rlhp() -> None:
    """Deep reinforcement learning from human preferences.

    Errors are one line each; RLHP_TRACEBACK=1 shows where they came from.
    """


@rlhp.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one key, as in learner.lr=1e-4.",
)
@click.option(
    "--resume",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Continue the run in this directory.",
)
@click.option("--name", help="Name of the new run; otherwise file name and time.")
@click.option(
    "--or-resume", is_flag=True, help="Continue the run of that --name where there is one."
)
@click.option(
    "--serial",
    is_flag=True,
    help="All parts in one process: slower, and the same numbers every time.",
)
@click.option(
    "--take-over",
    is_flag=True,
    help="Its process on another host is dead: do not wait for a sign of it.",
)
@click.option(
    "--keep",
    is_flag=True,
    help="Resume the run whenever its process is killed, as for want of memory.",
)
def train(
    config: Path | None,
    sets: tuple[str, ...],
    resume: Path | None,
    name: str | None,
    or_resume: bool,
    serial: bool,
    take_over: bool,
    keep: bool,
) -> int:
    """Train from preferences: rlhp train CONFIG, or rlhp train --resume RUN."""
    if (config is None) == (resume is None):
        raise click.UsageError("give a config file, or --resume RUN to continue a run, not both")
    if resume is not None and name is not None:
        raise click.UsageError("--name is for a new run; a resumed one keeps its name")
    from rlhp.config import loading
    from rlhp.storage.rundir import RunDir

    if or_resume:
        if config is None or name is None:
            raise click.UsageError(
                "--or-resume needs CONFIG to begin with, and the --name to look for"
            )
        resume = RunDir.existing(loading.load(config, sets=sets).runs_dir, name)
    if resume is not None:
        settings, rundir = _resumed(resume, sets)
    else:
        assert config is not None
        settings, rundir = _created(config, sets, name, checked=not keep)
    if keep:
        options = ["--serial"] * serial + ["--take-over"] * take_over
        if resume is not None:  # the run's own process stores them, once the run is its own
            options += [word for text in sets for word in ("--set", text)]
        return _kept(rundir, settings.ray.max_restarts, options, new=resume is None)
    from rlhp import program

    click.echo(f"run directory: {rundir.path}")
    summary = program.train(
        settings, rundir=rundir, resume=resume is not None, serial=serial, take_over=take_over
    )
    click.echo(str(summary))
    if summary.interrupted:
        return INTERRUPTED
    return 0 if rundir.info().state == "finished" else NOT_ALL


def _resumed(path: Path, sets: Sequence[str]) -> tuple[RunConfig, RunDir]:
    """The configuration of a run that is to go on, changed by `sets`, and its directory."""
    from rlhp.storage.rundir import RunDir
    from rlhp.system import ray_setup

    rundir = RunDir.open(path)
    _warn_of_changes(rundir)
    settings = ray_setup.on_loopback(rundir.config(sets=sets))
    ray_setup.refuse(starts_ray=settings.ray.address is None)
    return settings, rundir


def _created(
    config: Path, sets: Sequence[str], name: str | None, *, checked: bool
) -> tuple[RunConfig, RunDir]:
    """The configuration of a new run, and a directory for it.

    Not `checked`, where another process does that: the one that keeps a run stays small.
    """
    from rlhp.config import loading
    from rlhp.storage.rundir import RunDir
    from rlhp.system import ray_setup

    more = [f"name={json.dumps(name)}"] if name is not None else []
    settings = ray_setup.on_loopback(loading.load(config, sets=[*sets, *more]))
    ray_setup.refuse(starts_ray=settings.ray.address is None)
    if checked:
        from rlhp.run.preflight import check

        check(settings)  # what is refused leaves no run directory
    rundir = RunDir.create(settings, config.stem)
    return rundir.config(), rundir


def _kept(rundir: RunDir, most: int, options: Sequence[str], *, new: bool) -> int:
    """Have a run resumed whenever its process is killed; its exit code."""
    from rlhp.run import children

    code = children.keep(rundir, most=most, say=click.echo, options=options)
    if new and rundir.info().started is None:
        shutil.rmtree(rundir.path)  # refused
    return code


@rlhp.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one key, as in learner.lr=1e-4.",
)
def compare(config: Path, sets: tuple[str, ...]) -> int:
    """Train on preferences and, for comparison, on the env reward; say how much was
    recovered.
    """
    from rlhp.config import loading
    from rlhp.system import ray_setup
    from rlhp.system.ray_setup import on_loopback

    settings = on_loopback(loading.load(config, sets=sets))
    ray_setup.refuse(starts_ray=settings.ray.address is None)
    from rlhp.experiments.compare import compare as both

    comparison = both(settings, config_name=config.stem, say=click.echo)
    if comparison is None:
        return INTERRUPTED
    click.echo(f"\n{comparison}")
    return 0


@rlhp.command()
@click.argument("run_directory", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option("--redis", metavar="URL", help="Address of the queue, instead of a run directory.")
@click.option("--run", "run_name", metavar="NAME", help="Which run at that address.")
@click.option(
    "--teacher", metavar="NAME", help="Preset, or package.module:Name; otherwise the run's own."
)
@click.option(
    "--set-teacher", "sets", multiple=True, metavar="KEY=VALUE", help="One key of labels.teacher."
)
@click.option("--name", help="Name of this labeler.")
@click.option("--seed", type=SEED, help="Of the teacher's faults; otherwise the run's seed, or 0.")
@click.option(
    "--until-eof",
    is_flag=True,
    help="Leave when standard input ends, as it does when its holder dies.",
)
def label(
    run_directory: Path | None,
    redis: str | None,
    run_name: str | None,
    teacher: str | None,
    sets: tuple[str, ...],
    name: str | None,
    seed: int | None,
    until_eof: bool,
) -> int:
    """Answer the queries of a run with a teacher, here or on another machine."""
    if (run_directory is None) == (redis is None):
        raise click.UsageError(
            "give a run directory, or the address of its queue with --redis URL, not both"
        )
    from rlhp.config.schema import QueryConfig, TeacherConfig
    from rlhp.labeling.worker import queue_of, run_labeler
    from rlhp.storage import credentials
    from rlhp.storage.rundir import RunDir

    start, lease_seconds = TeacherConfig(), QueryConfig().lease_seconds
    if run_directory is not None:
        rundir = RunDir.open(run_directory)
        settings = rundir.config()
        start, run_name, lease_seconds = (
            settings.labels.teacher,
            rundir.name,
            settings.query.lease_seconds,
        )
        seed = settings.seed if seed is None else seed
        redis = queue_of(rundir)
    else:
        assert redis is not None
        redis = credentials.complete(redis)
    chosen = _teacher(start, name=teacher, sets=sets)
    return run_labeler(
        redis,
        run=run_name,
        teacher=chosen,
        name=name,
        seed=seed or 0,
        lease_seconds=lease_seconds,
        until_eof=until_eof,
    )


@rlhp.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Ask a Ray cluster: RUN is then a name, and may be left out.",
)
def status(run: Path | None, address: str | None) -> None:
    """Say what a run is doing, who is at work for it where, and why nothing is
    happening.
    """
    if address is not None:
        from rlhp.monitor import cluster_status

        click.echo(cluster_status.report(address, run=None if run is None else run.name))
        return
    if run is None:
        raise click.UsageError(
            "give a run directory, or the address of a Ray cluster with --address HOST:PORT"
        )
    from rlhp.monitor import status as status_
    from rlhp.storage.rundir import RunDir

    rundir = RunDir.open(run)
    _warn_of_changes(rundir)
    click.echo(status_.report(status_.gather(rundir)))


@rlhp.command(name="eval")
@_run
@click.option(
    "--episodes", type=click.IntRange(min=1), help="Otherwise evaluation.episodes of the run."
)
@click.option(
    "--explore/--no-explore",
    default=None,
    help="Sample actions; otherwise evaluation.explore of the run.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the evaluation episodes.")
@click.option(
    "--video",
    type=click.Path(path_type=Path),
    help="Draw an episode: a .webm, .mp4 or .png, and a .json.",
)
@click.option(
    "--best", is_flag=True, help="The checkpoint of the highest true return instead of the newest."
)
def evaluate(
    run: Path, episodes: int | None, explore: bool | None, seed: int, video: Path | None, best: bool
) -> None:
    """Measure the true return of a run's newest policy."""
    rundir, settings = _opened(run)
    from rlhp.system import ray_setup

    ray_setup.refuse(starts_ray=False)
    from rlhp import program

    result = program.evaluate(
        rundir,
        episodes=settings.evaluation.episodes if episodes is None else episodes,
        explore=settings.evaluation.explore if explore is None else explore,
        seed=seed,
        video=video,
        best=best,
    )
    for name, value in result.items():
        click.echo(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")


@rlhp.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Directory; otherwise plots/ of the run, or here.",
)
def plot(runs: tuple[Path, ...], out: Path | None) -> None:
    """Draw learning curves and reward diagnostics; runs that differ by seed share a
    line.
    """
    from rlhp.monitor.plots import plot as draw

    for file in draw(runs, out=out):
        click.echo(str(file))


@rlhp.command()
@click.argument("target", required=False, metavar="[RUN|CONFIG]", type=click.Path(path_type=Path))
def doctor(target: Path | None) -> int:
    """Check this machine, and a run or a config file."""
    from itertools import chain

    from rlhp.cli.doctor import examine, machine

    failed = False
    for check in chain(machine(), examine(target) if target is not None else ()):
        click.echo(str(check))
        failed = failed or check.level == "fail"
    return int(failed)


rlhp.add_command(cluster.submit)
rlhp.add_command(cluster.job)
rlhp.add_command(cluster.tune)
rlhp.add_command(labeling.serve)
rlhp.add_command(labeling.labeler)
rlhp.add_command(data.export)
rlhp.add_command(data.import_)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what a user can cure becomes a line on
    stderr.
    """
    try:
        with outliving() if arguments and arguments[0] in _GO_ON else nullcontext():
            return int(
                rlhp.main(args=list(arguments), prog_name="rlhp", standalone_mode=False) or 0
            )
    except click.ClickException as error:
        error.show()
        return MISTAKE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("RLHP_TRACEBACK") == "1":
            raise
        return _tell(error)


def _tell(error: Exception) -> int:
    """Say on stderr what went wrong; the exit code that goes with it."""
    known = root(error)
    if curable(known):
        for line in str(known).splitlines():
            click.echo(f"error: {line}", err=True)
        return MISTAKE
    file = log_with_traceback(error)
    if file is None:
        traceback.print_exception(error)
    else:
        click.echo(f"error: {one_line(known)}", err=True)
    where = "the traceback is above" if file is None else f"the traceback is at the end of {file}"
    click.echo(f"error: this is a fault of rlhp, not yours: {where}; please report it", err=True)
    return OURS


def _opened(run: Path) -> tuple[RunDir, Any]:
    from rlhp.storage.rundir import RunDir

    rundir = RunDir.open(run)
    _warn_of_changes(rundir)
    return rundir, rundir.config()


def _warn_of_changes(rundir: RunDir) -> None:
    for line in rundir.changed():
        click.echo(f"warning: {line}", err=True)


def _teacher(start: TeacherConfig, *, name: str | None, sets: Sequence[str]) -> TeacherConfig:
    from rlhp.config import loading
    from rlhp.config.schema import TeacherConfig

    if name is not None and name != start.name:
        start = TeacherConfig(name=name)  # the faults of another teacher are not this one's
    return loading.teacher(start, sets=sets)
