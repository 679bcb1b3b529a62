"""Where run directories are made, and what a new one is called."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

from rlhp.config import RunConfig
from rlhp.disk import expanded
from rlhp.errors import RlhpError

HOME = "RLHP_HOME"


def home(runs_dir: str) -> Path:
    """A relative path begins at RLHP_HOME, else here. ValueError where here is what Ray unpacked for a job."""
    path = expanded(runs_dir)
    if path.is_absolute():
        return path
    where = os.environ.get(HOME)
    if where:
        return Path(where) / path
    if "working_dir_files" in Path.cwd().parts:
        raise RlhpError(
            f"runs_dir={runs_dir} would lie in {Path.cwd()}, where Ray keeps the files of a job and deletes them; set "
            f"runs_dir to an absolute path on a disk that stays, or {HOME} on the node of the driver"
        )
    return path


def stem(config_name: str) -> str:
    """What a run without a name is called, before the time is added."""
    return (re.sub(r"[^A-Za-z0-9._-]+", "-", config_name).strip("-._") or "run")[:60]


def timed(config_name: str) -> str:
    """A name for a run that was given none."""
    return f"{stem(config_name)}-{datetime.now():%Y%m%d-%H%M%S}"


def new_path(config: RunConfig, config_name: str) -> Path:
    """An empty directory, made; ValueError where the run has a name and its directory has files in it."""
    given = config.name
    name = given or timed(config_name)
    for attempt in range(1, 1000):
        path = home(config.runs_dir) / (name if attempt == 1 else f"{name}-{attempt}")
        path.mkdir(parents=True, exist_ok=True)
        if not any(path.iterdir()):
            return path
        if given is not None:
            raise RlhpError(
                f"{path}: a new run needs an empty directory, this one has files in it; continue that run with "
                f"rlhp train --resume {path}, or give another --name"
            )
    raise RlhpError(f"{config.runs_dir}: a thousand runs were started this second; give a --name")
