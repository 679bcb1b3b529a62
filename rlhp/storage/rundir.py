"""What one run leaves on disk, and the facts about it in `run.json`.

runs/NAME/
  config.yaml       the resolved configuration, without passwords
  run.json          who ran what, when, in which state it is
  owner.json        the process that runs it now, with its heartbeat
  code.diff         what differed from the commit, if anything did
  metrics.jsonl     one row per iteration
  metrics.undone.jsonl
                    rows that a resume cut off, since the policy went back to a checkpoint before
  tensorboard/      the same numbers
  preferences/      segments and answers
  checkpoints/      policy, reward model, counters
  redis/            the embedded server
  redis.url         where a server of yours is, without password
  videos/           the newest video of the policy, and policy.json with each frame's prediction
  actors.json       every Ray actor as last seen
  plots/            the curves
  run.log           what the run said; page.log is the page's
  page.url          where people label, if the run started a page
  page.token        what opens that page as an admin; for the user alone who started the run
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from rlhp import files
from rlhp.config import addresses, loading
from rlhp.config.schema import RunConfig
from rlhp.errors import RlhpError, one_line
from rlhp.files import expanded
from rlhp.storage import credentials, provenance
from rlhp.storage.lease import DirectoryLease, TakenOver

HOME = "RLHP_HOME"


def home(runs_dir: str) -> Path:
    """A relative path begins at RLHP_HOME, else here. ValueError where here is what Ray
    unpacked for a job.
    """
    path = expanded(runs_dir)
    if path.is_absolute():
        return path
    where = os.environ.get(HOME)
    if where:
        return Path(where) / path
    if "working_dir_files" in Path.cwd().parts:
        raise RlhpError(
            f"runs_dir={runs_dir} would lie in {Path.cwd()}, where Ray keeps the files of a job "
            f"and deletes them; set runs_dir to an absolute path on a disk that stays, or {HOME} "
            "on the node of the driver"
        )
    return path


def stem(config_name: str) -> str:
    """What a run without a name is called, before the time is added."""
    return (re.sub(r"[^A-Za-z0-9._-]+", "-", config_name).strip("-._") or "run")[:60]


def timed(config_name: str) -> str:
    """A name for a run that was given none."""
    return f"{stem(config_name)}-{datetime.now():%Y%m%d-%H%M%S}"


def new_path(config: RunConfig, config_name: str) -> Path:
    """An empty directory, made; ValueError where the run has a name and its directory
    has files in it.
    """
    given = config.name
    name = given or timed(config_name)
    for attempt in range(1, 1000):
        path = home(config.runs_dir) / (name if attempt == 1 else f"{name}-{attempt}")
        path.mkdir(parents=True, exist_ok=True)
        if not any(path.iterdir()):
            return path
        if given is not None:
            raise RlhpError(
                f"{path}: a new run needs an empty directory, this one has files in it; continue "
                f"that run with rlhp train --resume {path}, or give another --name"
            )
    raise RlhpError(f"{config.runs_dir}: a thousand runs were started this second; give a --name")


State = Literal["created", "running", "finished", "interrupted", "failed"]
SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInfo:
    """The content of `run.json`."""

    name: str
    state: State
    seed: int
    config_sha256: str
    command: str
    commit: str | None
    """Commit of the checkout that ran; None for an installed package."""
    dirty: bool
    """Whether the checkout differed from the commit; `code.diff` says how."""
    versions: dict[str, str]
    host: str
    pid: int
    pid_started: int | None
    """Start time of that process in clock ticks since boot, which tells it from a later
    one with its id.
    """
    created: str
    started: str | None = None
    ended: str | None = None
    error: str | None = None
    """The line that ended a failed run."""
    resumed: int = 0
    """How often the run was started again."""
    restarts: int = 0
    """How often it went on from a checkpoint by itself, because its learner was lost.
    """
    redis_url_file: str = "redis.url"
    config_file_sha256: str | None = None
    """Of `config.yaml` as it was written."""
    schema: int = SCHEMA
    id: str = ""
    """Drawn for the run: another one of the same name is another run. Empty for a run
    of before there were ids.
    """

    @property
    def alive(self) -> bool:
        """Whether the process of the run is there; False for a run of another host,
        which nobody here can know.
        """
        return self._runs_here and provenance.alive(self.pid, self.pid_started)

    @property
    def died(self) -> bool:
        """Whether the process of the run is gone without having said so; False for a
        run of another host.
        """
        return self._runs_here and not provenance.alive(self.pid, self.pid_started)

    @property
    def _runs_here(self) -> bool:
        return self.state == "running" and self.host == socket.gethostname()


class RunDir:
    """The directory of one run.

    rundir = RunDir.create(config, "halfcheetah")
    with rundir.running():
        ...  # run.json says running, then finished, interrupted or failed
    """

    def __init__(self, path: str | Path) -> None:
        # a link to a run is that run, whose name is its directory's
        self.path = Path(os.path.realpath(path))
        self.config_file = self.path / "config.yaml"
        self.info_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.actors_file = self.path / "actors.json"
        self.undone_metrics_file = self.path / "metrics.undone.jsonl"
        self.log_file = self.path / "run.log"
        self.redis_url_file = self.path / "redis.url"
        self.page_url_file = self.path / "page.url"
        self.page_token_file = self.path / "page.token"
        self.preferences = self.path / "preferences"
        self.checkpoints = self.path / "checkpoints"
        self.plots = self.path / "plots"
        self.videos = self.path / "videos"
        self.redis = self.path / "redis"
        self.tensorboard = self.path / "tensorboard"
        self.lease = DirectoryLease(self.path)
        self._entered = False

    @classmethod
    def create(cls, config: RunConfig, config_name: str) -> RunDir:
        """A new directory below `config.runs_dir`, named by `config.name` or
        `<config_name>-<time>`.

        ValueError where that directory exists and is not empty.
        """
        rundir = cls(new_path(config, config_name))
        config = config.model_copy(update={"name": rundir.path.name})
        text = loading.dump(config)
        files.write_whole(rundir.config_file, text)
        if config.redis.url is not None:
            rundir.write_redis_url(config.redis.url)
        commit, diff = provenance.commit()
        if diff:
            files.write_whole(rundir.path / "code.diff", addresses.redact(diff))
        info = RunInfo(
            name=rundir.path.name,
            state="created",
            seed=config.seed,
            config_sha256=loading.sha256(config),
            command=provenance.command(),
            commit=commit,
            dirty=bool(diff),
            versions=provenance.versions(),
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_started=provenance.process_start(os.getpid()),
            created=provenance.now(),
            id=secrets.token_hex(8),
            config_file_sha256=_sha256(text),
        )
        rundir._save(info)
        return rundir

    @classmethod
    def open(cls, path: str | Path) -> RunDir:
        """An existing run; ValueError where `path` is not one."""
        rundir = cls(Path(path))
        if not rundir.path.is_dir():
            there = sorted(file.parent.name for file in rundir.path.parent.glob("*/run.json"))
            runs = f"runs there: {', '.join(there[-5:])}" if there else "no runs are there"
            raise RlhpError(f"{path}: no such run directory; {runs}")
        missing = [
            file.name for file in (rundir.config_file, rundir.info_file) if not file.is_file()
        ]
        if missing:
            raise RlhpError(
                f"{path}: not a run directory, it has no {' and no '.join(missing)}; "
                "give a directory that rlhp train made"
            )
        rundir.info()
        return rundir

    @classmethod
    def existing(cls, runs_dir: str, name: str) -> Path | None:
        """Where the run of this name is; None where none is."""
        path = home(runs_dir) / name
        return path if (path / "run.json").is_file() else None

    @property
    def name(self) -> str:
        """The run's name: that of its directory."""
        return self.path.name

    def config(self, *, sets: Sequence[str] = ()) -> RunConfig:
        """The resolved configuration, with the Redis password put back from where it is
        kept.
        """
        config = loading.load(self.config_file, sets=[f"name={json.dumps(self.name)}", *sets])
        if config.redis.url is None or addresses.REDACTED not in config.redis.url:
            return config
        url = self.redis_url()
        if url is None or not credentials.has_password(url):
            raise RlhpError(
                f"redis.url={config.redis.url}: its password is not kept in run directories, and "
                f"not known here; say it in {credentials.PASSWORD}, or in a file that "
                f"{credentials.PASSWORD_FILE} names"
            )
        return config.model_copy(update={"redis": config.redis.model_copy(update={"url": url})})

    def rewrite_config(self, config: RunConfig) -> None:
        """Store a changed configuration; the one before stays as `config.N.yaml`."""
        text = loading.dump(config)
        if text == self.config_file.read_text(encoding="utf-8"):
            return
        count = len(list(self.path.glob("config.*.yaml"))) + 1
        self.config_file.replace(self.path / f"config.{count}.yaml")
        files.write_whole(self.config_file, text)
        self.update(config_sha256=loading.sha256(config), config_file_sha256=_sha256(text))

    def write_redis_url(self, url: str) -> None:
        """Remember where the queue is; the password is kept outside, for this user's
        eyes only.
        """
        credentials.keep(self.path, url)
        files.write_whole(self.redis_url_file, credentials.without_password(url) + "\n", mode=0o600)

    def redis_url(self) -> str | None:
        """Where the queue is or was, password included; None before it was known.

        That of an embedded server lies in `redis/`, beside the data that it guards.
        """
        with suppress(OSError):
            url = self.redis_url_file.read_text(encoding="utf-8").strip()
            return credentials.kept(self.path) or credentials.complete(url)
        with suppress(OSError):
            return (self.redis / "url").read_text(encoding="utf-8").strip()
        return None

    def forget_redis_url(self) -> None:
        """The queue is on an embedded server."""
        self.redis_url_file.unlink(missing_ok=True)
        credentials.forget(self.path)

    def page_url(self) -> str | None:
        """Where the labeling page that the run started is; None where it started none."""
        with suppress(OSError):
            return self.page_url_file.read_text(encoding="utf-8").strip()
        return None

    def page_token(self) -> str | None:
        """The token of the link that the run's servers print; None before the first,
        and for other users.
        """
        with suppress(OSError):
            return self.page_token_file.read_text(encoding="utf-8").strip()
        return None

    def write_page_token(self, token: str) -> None:
        """Remember it for this user's eyes only, so that a resume prints the same link."""
        files.write_whole(self.page_token_file, token + "\n", mode=0o600)

    def page_link(self) -> str | None:
        """The address with that token, as far as both are known here."""
        address, token = self.page_url(), self.page_token()
        return address if address is None or token is None else f"{address}/#token={token}"

    @property
    def has_rows(self) -> bool:
        """Whether anything was ever measured."""
        return self.metrics_file.exists() and self.metrics_file.stat().st_size > 0

    def info(self) -> RunInfo:
        """The facts in `run.json`; ValueError where it is damaged or from another
        version.
        """
        try:
            text = self.info_file.read_bytes()
            schema = json.loads(text).get("schema")
            if schema != SCHEMA:
                raise RlhpError(f"its schema is {schema}, this rlhp reads {SCHEMA}")
            return _FACTS.validate_json(text, strict=True)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            why = _first(error) if isinstance(error, ValidationError) else str(error)
            raise RlhpError(
                f"{self.info_file}: cannot be read as facts of a run: {why}; restore it"
            ) from None

    def changed(self) -> list[str]:
        """One line for each file that is not as this program wrote it, and is used as
        it is.
        """
        lines = []
        data = json.loads(self.info_file.read_bytes())
        digest = data.pop(_DIGEST, None)
        if digest != _sha256(json.dumps(data, sort_keys=True)) and not _older(data):
            lines.append(
                f"{self.info_file} is not what was written: it was changed by hand, or is damaged"
            )
        known = self.info().config_file_sha256
        if known is not None and known != _sha256(self.config_file.read_bytes()):
            lines.append(
                f"{self.config_file} is not what was written: it was changed by hand, which --set "
                "KEY=VALUE with --resume does better, or is damaged"
            )
        return lines

    def update(self, **facts: Any) -> RunInfo:
        """Change some facts in `run.json`, all or none of them."""
        info = dataclasses.replace(self.info(), **facts)
        self._save(info)
        return info

    @contextmanager
    def running(
        self, *, take_over: bool = False, say: Callable[[str], object] = print
    ) -> Iterator[None]:
        """Mark the run as running, then by how the block ended; nesting it changes
        nothing.

        RlhpError where another process still runs it, here or on another host that
        shares the disk; with `take_over` one that nobody here can look for is taken for
        dead.
        """
        if self._entered:
            yield
            return
        info = self.info()
        if info.alive and info.pid != os.getpid():
            raise RlhpError(
                f"{self.path}: the run is still going on as process {info.pid}; stop that one first"
            )
        with self.lease.held(take_over=take_over, say=say):
            self._begin(info)
            self._entered = True
            try:
                yield
            except (KeyboardInterrupt, SystemExit):
                self._end(state="interrupted")
                raise
            except BaseException as error:
                with suppress(OSError):  # of a disk that is full, of which the error itself tells
                    self._end(state="failed", error=addresses.redact(one_line(error)))
                raise
            else:
                # A run that stopped itself early has said so, with
                # update(state="interrupted").
                state = self.info().state
                self._end(state="finished" if state == "running" else state)
            finally:
                self._entered = False

    def _end(self, **facts: Any) -> None:
        with suppress(TakenOver):  # then the facts are another process's
            self.lease.check()
            self.update(**facts, ended=provenance.now())

    def _begin(self, info: RunInfo) -> None:
        self.update(
            state="running",
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_started=provenance.process_start(os.getpid()),
            command=provenance.command(),
            versions=provenance.versions(),
            started=provenance.now(),
            ended=None,
            error=None,
            resumed=info.resumed + (info.started is not None),
        )

    def _save(self, info: RunInfo) -> None:
        facts = dataclasses.asdict(info)
        facts[_DIGEST] = _sha256(json.dumps(facts, sort_keys=True))
        files.write_whole(self.info_file, json.dumps(facts, indent=2) + "\n")


_DIGEST = "sha256"
"""The key of `run.json` that holds the digest of all others."""
_FACTS = TypeAdapter(RunInfo)


def _sha256(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def _older(data: dict[str, Any]) -> bool:
    """Whether these facts were written before they had a digest."""
    return data.keys() <= {item.name for item in dataclasses.fields(RunInfo)} - {
        "config_file_sha256"
    }


def _first(error: ValidationError) -> str:
    """The first problem in words."""
    detail = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
