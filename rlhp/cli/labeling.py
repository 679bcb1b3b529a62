"""The commands for people who label: `rlhp serve` and `rlhp labeler`.

A run is given by its directory, or by the address of its Redis and, where several runs
are there, its name.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rlhp.errors import RlhpError

if TYPE_CHECKING:
    from rlhp.labeling.page.desk import Place
    from rlhp.queue.queue import QueryQueue

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
PEM = click.Path(exists=True, dir_okay=False)


def _which_run(command: Command) -> Command:
    """`[RUN] [--redis URL] [--run NAME]`."""
    command = click.argument("run_directory", metavar="[RUN]", required=False, type=PATH)(command)
    command = click.option(
        "--redis", metavar="URL", help="Address of the queue, instead of a run directory."
    )(command)
    return click.option("--run", "run_name", metavar="NAME", help="Which run at that address.")(
        command
    )


@click.command()
@_which_run
@click.option("--host", help="Address to listen at; otherwise page.host of the run, or 127.0.0.1.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="0 for a free one; otherwise page.port of the run, or 8080.",
)
@click.option(
    "--add", metavar="NAME", help="First make a token for this admin; its link is printed once."
)
@click.option("--certificate", type=PEM, help="PEM file: serve https.")
@click.option("--key", type=PEM, help="PEM file of its key.")
@click.option(
    "--until-eof",
    is_flag=True,
    help="Leave when standard input ends, as it does when its holder dies.",
)
@click.option(
    "--socket", "descriptor", type=int, hidden=True, help="A listening socket that was handed down."
)
def serve(
    run_directory: Path | None,
    redis: str | None,
    run_name: str | None,
    host: str | None,
    port: int | None,
    add: str | None,
    certificate: str | None,
    key: str | None,
    until_eof: bool,
    descriptor: int | None,
) -> None:
    """Serve the labeling page of a run, here or on another machine."""
    from rlhp.config.schema import PageConfig
    from rlhp.labeling.page.address import bound
    from rlhp.labeling.page.server import serve as run_server

    place = _place(run_directory, redis, run_name)
    page = place.rundir.config().page if place.rundir is not None else PageConfig()
    if descriptor is not None:
        listening = socket.socket(fileno=descriptor)
    else:
        wanted = page.port if port is None else port
        listening = bound(page.host if host is None else host, wanted, or_free=port is None)
    run_server(
        place,
        listening,
        add=add,
        until_eof=until_eof,
        # whoever handed it down prints the link: what is said here goes to a log
        link=descriptor is None,
        certificate=certificate,
        key=key,
        say=lambda line: click.echo(line),
    )


@click.group()
def labeler() -> None:
    """Say who may label a run, each with a token and the link that holds it."""


@labeler.command()
@click.argument("name")
@_which_run
@click.option("--admin", is_flag=True, help="May see everybody's answers and correct them.")
def add(
    name: str, run_directory: Path | None, redis: str | None, run_name: str | None, admin: bool
) -> None:
    """Admit a labeler; the token is shown once."""
    place = _place(run_directory, redis, run_name)
    token = _queue(place).accounts.add(name, admin=admin)
    where = place.rundir.page_url() if place.rundir is not None else None
    click.echo(
        f"{'admin' if admin else 'labeler'} {name}: {where or 'http://HOST:PORT'}/#token={token}"
    )
    click.echo("the token is shown this once; rlhp labeler remove makes it worthless")


@labeler.command(name="list")
@_which_run
def list_(run_directory: Path | None, redis: str | None, run_name: str | None) -> None:
    """Name everybody with a token."""
    found = _queue(_place(run_directory, redis, run_name)).accounts.all()
    for each in found:
        click.echo(f"{each.name}{'  admin' if each.admin else ''}")
    if not found:
        click.echo(
            "nobody has a token; rlhp labeler add NAME makes one, rlhp serve prints a link",
            err=True,
        )


@labeler.command()
@click.argument("name")
@_which_run
def remove(name: str, run_directory: Path | None, redis: str | None, run_name: str | None) -> None:
    """Make a labeler's token worthless at once; answers given stay."""
    place = _place(run_directory, redis, run_name)
    if not _queue(place).accounts.remove(name):
        raise RlhpError(
            f"no labeler {name!r} has a token for run {place.run}; rlhp labeler list names them"
        )
    click.echo(f"labeler {name} is out")


@labeler.command()
@click.argument("name")
@_which_run
def pardon(name: str, run_directory: Path | None, redis: str | None, run_name: str | None) -> None:
    """Let a paused labeler go on, and never pause it again; its answers count in full."""
    _queue(_place(run_directory, redis, run_name)).pauses.pardon(name)
    click.echo(f"labeler {name} is pardoned")


def _place(run_directory: Path | None, redis: str | None, run_name: str | None) -> Place:
    if (run_directory is None) == (redis is None):
        raise click.UsageError(
            "give a run directory, or the address of its queue with --redis URL, not both"
        )
    from rlhp.labeling.page.desk import Place
    from rlhp.labeling.worker import only_run, queue_of
    from rlhp.storage import credentials
    from rlhp.storage.rundir import RunDir

    if run_directory is None:
        assert redis is not None
        redis = credentials.complete(redis)
        return Place(url=redis, run=run_name if run_name is not None else only_run(redis))
    rundir = RunDir.open(run_directory)
    return Place(
        url=queue_of(rundir),
        run=rundir.name,
        lease_seconds=rundir.config().query.lease_seconds,
        rundir=rundir,
    )


def _queue(place: Place) -> QueryQueue:
    from rlhp.queue.queue import QueryQueue, ping

    ping(place.url)
    return QueryQueue(place.url, run=place.run)
