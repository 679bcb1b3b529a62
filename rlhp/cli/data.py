"""The commands that exchange preferences with other tools: `rlhp export` and `rlhp
import`.
"""

from __future__ import annotations

from pathlib import Path

import click

from rlhp.errors import RlhpError

PATH = click.Path(path_type=Path)
SOURCES = ["npz", "imitation", "label-studio"]


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "--to",
    required=True,
    type=click.Choice(["npz", "parquet", "jsonl", "imitation", "label-studio"]),
    help="Format; docs/labeling.md describes each.",
)
@click.option(
    "--out", required=True, type=PATH, help="File; directory for parquet and label-studio."
)
@click.option(
    "--pairs",
    type=click.IntRange(min=1),
    help="label-studio: so many new pairs; otherwise those answered.",
)
@click.option("--url", metavar="PREFIX", help="label-studio: what comes before a clip's file name.")
def export(run: Path, to: str, out: Path, pairs: int | None, url: str | None) -> None:
    """Write a run's preferences for other tools."""
    from rlhp.storage.rundir import RunDir

    rundir = RunDir.open(run)
    if to == "label-studio":
        _export_tasks(rundir.path, out, pairs=pairs or 0, url=url)
        return
    if pairs is not None or url is not None:
        raise click.UsageError(f"--pairs and --url are for label-studio, not for {to}")
    from rlhp.preferences.exchange.tables import export as write

    done = write(rundir.preferences, out, to=to)  # type: ignore[arg-type]  # one of click's choices
    click.echo(
        f"{done.out}: {done.preferences} preferences ({done.incomparable} incomparable), "
        f"{done.segments} segments"
    )
    _say_wider(done.wider, to)


@click.command(name="import")
@click.argument("source", type=PATH)
@click.option("--from", "origin", required=True, type=click.Choice(SOURCES), help="Format.")
@click.option("--out", required=True, type=PATH, help="Directory of the new dataset.")
@click.option(
    "--like", metavar="RUN", type=PATH, help="A run in the same environment, or that of the tasks."
)
def import_(source: Path, origin: str, out: Path, like: Path | None) -> None:
    """Make a dataset of other tools' preferences, for labels.reuse."""
    from rlhp.preferences.exchange.imitation import import_imitation, import_npz

    if (like is None) != (origin == "npz"):
        raise click.UsageError(
            "--like RUN is needed for imitation and label-studio, and npz says itself what it holds"
        )
    if like is None:
        done = import_npz(source, out)
    elif origin == "imitation":
        from rlhp.preferences.dataset import PreferenceDataset

        done = import_imitation(source, out, like=PreferenceDataset.open(like).header)
    else:
        from rlhp.preferences.exchange.label_studio import import_answers

        done = import_answers(source, out, like=like)
    click.echo(f"{done.out}: {done.preferences} preferences, {done.segments} segments")
    click.echo(f"train on them with --set labels.reuse={done.out}")


def _say_wider(count: int, to: str) -> None:
    if count:
        click.echo(
            f"{count} left out: {to} holds pairs, and they are about more than two candidates; "
            "jsonl and parquet hold them"
        )


def _export_tasks(run: Path, out: Path, *, pairs: int, url: str | None) -> None:
    from rlhp.envs.states import CannotDraw
    from rlhp.labeling.clips.painter import Painter
    from rlhp.preferences.exchange.label_studio import LOCAL_FILES, export_tasks
    from rlhp.storage.rundir import RunDir

    rundir = RunDir.open(run)
    config = rundir.config()
    try:
        with Painter(config.env, config.clips) as painter:
            done = export_tasks(
                rundir.preferences,
                out,
                draw=lambda segment: painter.clip(segment).data,
                instruction=config.labels.instruction,
                url=LOCAL_FILES if url is None else url,
                new_pairs=pairs,
            )
    except CannotDraw as error:
        why = ""
        if not config.draws_clips:
            why = (
                "; this run kept no pictures, since nobody was to see any: train with "
                "clips.enabled=true"
            )
        raise RlhpError(
            f"{rundir.path} cannot be exported to label-studio: {error}{why}"
        ) from error
    click.echo(f"{done.out}: {done.tasks} tasks, {done.clips} clips")
