"""The commands for clusters: `rlhp submit`, `rlhp job`, `rlhp tune`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

INTERRUPTED = 130

_address = click.option(
    "--address",
    metavar="URL",
    help="Dashboard of the head, as http://head:8265; otherwise RAY_API_SERVER_ADDRESS.",
)
_run = click.argument("run", metavar="RUN")


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@_address
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one key, as in learner.lr=1e-4.",
)
@click.option(
    "--name",
    help="Name of the run, and of its job; otherwise file name and time. Again: goes on with it.",
)
@click.option(
    "--working-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Sent to every node; or here.",
)
@click.option(
    "--no-upload", is_flag=True, help="Send nothing: the nodes have the code, and CONFIG."
)
@click.option(
    "--image", metavar="URI", help="Run in this container image, which holds CONFIG; sends nothing."
)
@click.option(
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set a variable there; without value, as here.",
)
@click.option(
    "--reserve",
    multiple=True,
    metavar="NAME=AMOUNT",
    help="Resource of the driver's node, as learner=1.",
)
@click.option("--no-wait", is_flag=True, help="Do not follow what it prints.")
def submit(
    config: Path,
    address: str | None,
    sets: tuple[str, ...],
    name: str | None,
    working_dir: Path | None,
    no_upload: bool,
    image: str | None,
    env: tuple[str, ...],
    reserve: tuple[str, ...],
    no_wait: bool,
) -> int:
    """Train on a Ray cluster elsewhere, and follow what it prints; Ctrl-C leaves it
    running.
    """
    if (image is not None or no_upload) and working_dir is not None:
        raise click.UsageError(
            "--working-dir sends files, --image and --no-upload send none; give one of them"
        )
    from rlhp.experiments import jobs

    sends = image is None and not no_upload
    wanted = jobs.order(
        config,
        name=name,
        sets=sets,
        working_dir=(working_dir or Path.cwd()) if sends else None,
        image=image,
        env=env,
        reserve=reserve,
    )
    cluster = jobs.Jobs(address)
    job = cluster.submit(wanted)
    click.echo(f"job {job} at {cluster.address}: {wanted.entrypoint}")
    if no_wait:
        click.echo(
            f"follow it with rlhp job logs {wanted.name}, end it with rlhp job stop {wanted.name}"
        )
        return 0
    return _follow(cluster, job, wanted.name)


@click.group()
def job() -> None:
    """Runs on a cluster elsewhere: list, status, logs, stop."""


@job.command(name="list")
@_address
def list_(address: str | None) -> None:
    """Every run that was submitted to the cluster."""
    from rlhp.experiments import jobs

    found = jobs.Jobs(address).all()
    for each in found:
        click.echo(jobs.show(each))
    if not found:
        click.echo("no run was submitted there", err=True)


@job.command()
@_run
@_address
def status(run: str, address: str | None) -> None:
    """How the newest job of a run is."""
    from rlhp.experiments import jobs

    cluster = jobs.Jobs(address)
    newest = cluster.newest(run)
    click.echo(jobs.show(newest))
    click.echo(f"command: {newest.entrypoint}")
    if newest.message:
        click.echo(f"message: {newest.message.strip()}")


@job.command()
@_run
@_address
@click.option("--no-wait", is_flag=True, help="Print what is there, and leave.")
def logs(run: str, address: str | None, no_wait: bool) -> int:
    """What the newest job of a run prints, until it ends."""
    from rlhp.experiments import jobs

    cluster = jobs.Jobs(address)
    newest = cluster.newest(run).submission_id
    if no_wait:
        click.echo(cluster.logs(newest), nl=False)
        return 0
    return _follow(cluster, newest, run)


@job.command()
@_run
@_address
def stop(run: str, address: str | None) -> int:
    """End a run as Ctrl-C would: after its present iteration, with a checkpoint."""
    from rlhp.experiments import jobs

    cluster = jobs.Jobs(address)
    newest = cluster.newest(run).submission_id
    state = cluster.stop(newest)
    click.echo(f"job {newest}: {state}")
    return 0 if state in jobs.ENDED else 1


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--num-samples",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Draws; a grid each.",
)
@click.option(
    "--at-once", type=click.IntRange(min=1), help="Most trials at a time; otherwise as many as fit."
)
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one key of every trial."
)
@click.option("--name", help="Name of the sweep; otherwise file name and time.")
def tune(
    config: Path, num_samples: int, at_once: int | None, sets: tuple[str, ...], name: str | None
) -> int:
    """Train with values drawn from the `search:` of a config, and rank the runs."""
    from rlhp.config import loading
    from rlhp.system import ray_setup
    from rlhp.system.ray_setup import on_loopback

    with suppress(loading.ConfigError):  # of which loading the sweep says more
        on_loopback(loading.parse(loading.load_data(config, without="search")[0], sets=sets))
    ray_setup.refuse(starts_ray=False)
    from rlhp.experiments import sweep
    from rlhp.storage import rundir

    settings, search = sweep.load(config, sets=sets)
    name = name or rundir.timed(config.stem)
    trials = sweep.sweep(
        settings, search, name=name, samples=num_samples, at_once=at_once, say=click.echo
    )
    for trial in trials:
        values = ", ".join(f"{key}={_short(value)}" for key, value in trial.values.items())
        end = f"failed: {trial.error}" if trial.error else f"true return {trial.true_return:.1f}"
        click.echo(f"{end:<24} {values}  {trial.run}")
    return int(any(trial.error for trial in trials))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _follow(cluster: object, name: str, run: str) -> int:
    from rlhp.experiments import jobs

    assert isinstance(cluster, jobs.Jobs)
    try:
        state = cluster.follow(name, lambda text: click.echo(text, nl=False))
    except KeyboardInterrupt:
        click.echo(
            f"\njob {name} goes on; rlhp job logs {run} follows it, rlhp job stop {run} ends it",
            err=True,
        )
        return INTERRUPTED
    click.echo(f"job {name}: {state}")
    if state == jobs.FAILED and (why := cluster.message(name)):
        click.echo(why.strip(), err=True)
    return {jobs.SUCCEEDED: 0, jobs.STOPPED: INTERRUPTED}.get(state, 1)
