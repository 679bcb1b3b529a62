"""A real distributed run in a process of its own, to be watched and killed from
outside.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import redis
import yaml

from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.storage import provenance
from rlhp.storage.rundir import RunDir
from tests.environments import LENGTH

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 100.0
"""For one thing to happen on a machine that does much else."""

SETTINGS: dict[str, Any] = {
    "name": "run",
    "env": {
        "id": "tests.environments:Drift",
        "max_episode_steps": LENGTH,
        "hide_termination": True,
    },
    "rollout": {"num_env_runners": 2, "num_envs_per_env_runner": 4, "segments_per_fragment": 100},
    "labels": {
        "budget": 600,
        "initial_share": 0.05,
        "schedule_c": 20_000,
        "teacher": {"name": "tests.environments:ByObservation", "latency_seconds": 0.1},
    },
    "query": {"segment_length": 5, "pool": 100, "lease_seconds": 2, "max_open": 20},
    "reward": {
        "members": 2,
        "hidden": [8],
        "pretrain_epochs": 2,
        "batch_size": 8,
        "reservoir": 200,
        "publish_every_steps": 1000,
        "label_uses_per_step": 0.1,
        "replicas": 2,
    },
    "learner": {
        "hidden": [8],
        "train_batch_size": 200,
        "minibatch_size": 100,
        "num_epochs": 1,
        "total_env_steps": 100_000_000,
        "num_learners": 1,
    },
    "ray": {"stall_seconds": 10},
    "evaluation": {"episodes": 2},
    "checkpoint": {"every_env_steps": 2000},
    "tensorboard": False,
}
"""A run that goes on until it is stopped, with labels left for a long time and a
teacher that takes its time.
"""


class Driver:
    """`rlhp train` in a process and a session of its own; whatever it leaves behind is
    killed at the end.
    """

    def __init__(self, folder: Path, **changes: dict[str, Any]) -> None:
        """`changes` are merged into the sections of SETTINGS."""
        self.path = folder / "runs" / "run"
        self.output = folder / "output.txt"
        self._config = folder / "run.yaml"
        settings = {**SETTINGS, "runs_dir": str(folder / "runs")}
        settings |= {name: {**settings.get(name, {}), **change} for name, change in changes.items()}
        self._config.write_text(yaml.dump(settings))
        self._process: subprocess.Popen[bytes] | None = None
        self._started: dict[int, int | None] = {}

    def start(self, *arguments: str) -> None:
        """Begin the run, or go on with it where it exists."""
        what = ["--resume", str(self.path)] if self.path.exists() else [str(self._config)]
        command = [sys.executable, "-m", "rlhp", "train", *what, *arguments]
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def processes(self) -> dict[int, str]:
        """The command line of every process below the driver, by process id."""
        found = descendants(self.process.pid)
        self._started |= {pid: provenance.process_start(pid) for pid in found}
        return found

    def pids(self, words: str) -> set[int]:
        """Those with these words in their command line."""
        return {pid for pid, command in self.processes().items() if words in command}

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        return self.process.wait(PATIENCE_SECONDS)

    def rows(self) -> list[dict[str, Any]]:
        """Every whole row of `metrics.jsonl`."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def newest(self, name: str) -> float:
        """The last known value of a metric, 0 before there was one."""
        return float(
            next((row[name] for row in reversed(self.rows()) if row.get(name) is not None), 0)
        )

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something, unless the run ends before it happens."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert self.process.poll() is None, f"the run ended:\n{self.said()}"
            assert time.monotonic() < deadline, f"waited in vain:\n{self.said()}"
            time.sleep(0.1)

    def goes_on(self) -> None:
        """Wait until env steps, answers and reward versions have all grown."""
        before = {
            name: self.newest(name) for name in ("env_steps", "labels/answered", "reward/version")
        }
        self.until(lambda: self.newest("env_steps") >= before["env_steps"] + 2000)
        self.until(lambda: all(self.newest(name) > value for name, value in before.items()))

    def said(self) -> str:
        """The end of its output and of its log."""
        return self.output.read_text()[-3000:] + self.log()[-3000:]

    def log(self) -> str:
        """Its log, so far."""
        log = self.path / "run.log"
        return log.read_text() if log.exists() else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.processes()
            self._process.kill()
            self._process.wait()
        for pid, started in self._started.items():
            if provenance.alive(pid, started):  # that one, and not a later one with its id
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> dict[int, str]:
    """Command lines by process id of all that this process has started, directly or
    not.
    """
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
            except (FileNotFoundError, ProcessLookupError):
                continue
    found: dict[int, str] = {}
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found |= {child: command_line(child) for child in level}
    return found


def command_line(pid: int) -> str:
    """Empty for a process that is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill(pids: Sequence[int] | set[int]) -> None:
    """kill -9."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


Key = tuple[str, str, int, str]


def stream(path: Path) -> tuple[list[Key], dict[str, Any]]:
    """What Redis knows at the end: every event that the answer log still has, and the
    counters.
    """
    rundir = RunDir.open(path)
    with (
        EmbeddedRedis(rundir.redis) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        prefix = f"rlhp:{{{rundir.name}}}:"
        entries = [fields for _, fields in client.xrange(f"{prefix}answers")]
        pending: Any = client.xpending(f"{prefix}answers", "reward")
        counts: Any = client.hgetall(f"{prefix}counts")
        pairs: Any = client.hvals(f"{prefix}dedup")
    keys = [(each["id"], each["by"], int(each["rev"]), each["ev"]) for each in entries]
    facts = {name: int(value) for name, value in counts.items()}
    return keys, {**facts, "pending": pending["pending"], "pairs": len(pairs)}


def check_answers(path: Path) -> None:
    """No answer was lost, none counted twice, no pair asked twice, and no more asked
    than was allowed.
    """
    keys, facts = stream(path)
    stored = PreferenceDataset.open(path / "preferences")
    rows = [(row.query_id, row.labeler or "", row.rev, row.event) for row in stored.events()]
    assert len(rows) == len(set(rows)) > 0, "on disk once"
    assert len(keys) == len(set(keys))
    assert set(keys) <= set(rows), (
        "all that Redis still has; it forgets what was acknowledged a while ago"
    )
    assert facts["pending"] == 0
    assert facts["events"] == facts["acked"] == len(rows), "and all that it ever had"
    pairs = [
        frozenset((row.first_id, row.second_id)) for row in stored.events() if row.event == "answer"
    ]
    assert len(pairs) == len(set(pairs))
    assert facts["pairs"] == facts["admitted"] <= SETTINGS["labels"]["budget"]
    assert stored.counts()["answers"] == len(
        {query for query, _, _, event in rows if event == "answer"}
    )
    assert stored.counts()["without_segments"] == 0


def check_versions(rows: Sequence[dict[str, Any]]) -> None:
    """Reward versions only grow."""
    versions = [row["reward/version"] for row in rows if row.get("reward/version") is not None]
    assert versions == sorted(versions)
    assert versions[-1] >= 2
