"""Every kind of process of a run is killed once a minute, at moments drawn from a seed;
it ends by itself.

Meanwhile entries that nobody wrote are put into its log, the clock of its Redis jumps
by hours, and it is started a second time (`meddling`).

    python -m benchmarks.chaos                       # 3 calm runs, one under kill -9: an hour
    python -m benchmarks.chaos --calm 0              # the other one alone
    python -m benchmarks.chaos --calm 0 --minutes 3  # a short one

The task is Pendulum at the pace of a slow simulator, so that a run takes a while and a
small machine suffices. The run is one of `labels.source=human`: it has a clip renderer
and a page; teachers answer in the place of people, as processes from elsewhere that
this program starts again. What is counted at the end: answers that Redis took and the
disk has not (lost), that the disk has twice (duplicated), queries asked twice, entries
that were set aside; and whether the true return is where those of the calm runs are.
Rows go to `results/chaos.jsonl`; a run that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import redis

from benchmarks.report import rows, tables
from benchmarks.rig.meddling import NOBODY_ASKED, Meddler
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.storage.rundir import RunDir

NAME = "chaos"
ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "pendulum.yaml"
KINDS = {
    "env runner": "ray::ColumnarEnvRunner",
    "reward model": "ray::RewardModelProcess",
    "query actor": "ray::QueryActorProcess",
    "reward trainer": "ray::RewardTrainerProcess",
    "clip renderer": "ray::ClipRendererProcess",
    "learner": "ray::_WrappedExecutable",
    "Redis": "-server 127.0.0.1:",
    "page": "-m rlhp serve",
    "labeler": "-m rlhp label",
    "driver": "-m rlhp train --resume",
}
"""What stands in the command line of each."""
STEP_SECONDS = 0.01
"""Per step of a simulator; eight of them step one after the other."""
EVERY_MINUTES = {"driver": 4}
"""Once a minute otherwise. A driver brings all of Ray with it, half a minute on a busy
machine: one that is killed before it has made a checkpoint makes no progress at all,
and no program can help that.
"""
SECOND_OWNER_MINUTE = 3
"""The run is started a second time in the third of every four minutes, long before and
after the driver is killed.
"""
MEDDLING = {"poison": Meddler.poison, "clock": Meddler.shift}
"""Once a minute."""
LABELERS = 2
MINUTE = 60.0
LONGEST_SECONDS = 3 * 3600.0


class SlowPendulum(gym.Wrapper[Any, Any, Any, Any]):
    """Pendulum-v1 at the pace of a slow simulator."""

    def __init__(self, step_seconds: float = STEP_SECONDS, render_mode: str | None = None) -> None:
        super().__init__(gym.make("Pendulum-v1", render_mode=render_mode))
        self._step_seconds = step_seconds

    def step(self, action: Any) -> Any:
        """One step, not too soon."""
        time.sleep(self._step_seconds)
        return self.env.step(action)


def sets(folder: Path, *, seed: int, steps: int) -> list[str]:
    """The same for a calm run and for the other."""
    return [
        "env.id=benchmarks.chaos:SlowPendulum",
        f"runs_dir={folder}",
        "name=run",
        f"seed={seed}",
        f"learner.total_env_steps={steps}",
        "learner.num_learners=1",
        "rollout.num_env_runners=2",
        "reward.replicas=2",
        "labels.source=human",
        "labels.share_env_reward=true",
        "quality.gold_rate=0",
        "quality.action=none",
        "page.port=0",
        "query.lease_seconds=10",
        "checkpoint.every_env_steps=1000",
        "evaluation.episodes=20",
        "tensorboard=false",
        "ray.stall_seconds=60",
        "ray.max_restarts=20",
    ]


class Run:
    """One run with `--keep`, and labelers that are started again when they die."""

    def __init__(self, folder: Path, *, seed: int, steps: int, more: Sequence[str] = ()) -> None:
        self.path = folder / "run"
        self.meddler = Meddler(folder, self.path, [*sets(folder, seed=seed, steps=steps), *more])
        self._output = (folder / "output.txt").open("ab")
        words = [
            word
            for each in (*sets(folder, seed=seed, steps=steps), *more)
            for word in ("--set", each)
        ]
        self._keeper = self._start("train", str(CONFIG), "--keep", *words)
        self._labelers: list[subprocess.Popen[bytes] | None] = [None] * LABELERS

    def going(self) -> bool:
        """Whether it has not ended; sees to the labelers."""
        if self._keeper.poll() is not None:
            return False
        if (self.path / "run.json").exists() and RunDir.open(self.path).redis_url() is not None:
            for number, labeler in enumerate(self._labelers):
                if labeler is None or labeler.poll() not in (None, 0):
                    self._labelers[number] = self._start(
                        "label", str(self.path), "--teacher", "oracle", "--name", f"t{number}"
                    )
        return True

    def pids(self, kind: str) -> list[int]:
        """Processes of a kind, oldest first."""
        return sorted(pid for pid, words in self._everybody().items() if KINDS[kind] in words)

    def kill(self) -> None:
        """The whole of it, at once."""
        everybody = self._everybody()
        self._keeper.kill()
        self._keeper.wait()
        for pid in everybody:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._output.close()

    def end(self) -> int:
        """The exit code; nobody is left."""
        for labeler in self._labelers:
            if labeler is not None and labeler.poll() is None:
                labeler.kill()
        self._output.close()
        return self._keeper.wait()

    def _everybody(self) -> dict[int, str]:
        """Command lines of all processes that descend from this one."""
        parents, found = {}, {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    parents[int(entry.name)] = int(
                        (entry / "stat").read_text().rpartition(")")[2].split()[1]
                    )
        level = {os.getpid()}
        while level := {child for child, parent in parents.items() if parent in level}:
            for pid in level:
                with suppress(OSError):
                    found[pid] = (
                        Path(f"/proc/{pid}/cmdline")
                        .read_text(errors="replace")
                        .replace("\0", " ")
                        .strip()
                    )
        return found

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.meddler.clock.environment}
        return subprocess.Popen(
            [sys.executable, "-m", "rlhp", *words],
            stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output, env=environment,
        )  # fmt: skip


def schedule(seed: int, minute: int) -> list[tuple[float, str]]:
    """What happens in this minute: (seconds since the start, kind of process or of
    meddling), in order.
    """
    rng = random.Random(f"{seed}/{minute}")
    kinds = [kind for kind in KINDS if (minute + 1) % EVERY_MINUTES.get(kind, 1) == 0]
    moments = [(minute + rng.random(), kind) for kind in [*kinds, *MEDDLING]]
    if (minute + 1) % EVERY_MINUTES["driver"] == SECOND_OWNER_MINUTE:
        moments.append((minute + rng.random() / 2, "second owner"))
    return sorted((MINUTE * moment, kind) for moment, kind in moments)


def strike(run: Run, kind: str, rng: random.Random) -> bool:
    """Kill one process of a kind, or meddle; False where nothing was there to be
    struck.
    """
    if kind == "second owner":
        return run.meddler.second_owner(rng)
    if kind in MEDDLING:
        return MEDDLING[kind](run.meddler, rng)
    there = run.pids(kind)
    if not there:
        return False
    with suppress(ProcessLookupError):
        os.kill(rng.choice(there), signal.SIGKILL)
    return True


def torment(run: Run, *, seed: int, minutes: float, say: Any = print) -> Counter[str]:
    """Strike for so long from the first checkpoint on, and wait for the end of the run;
    kills of each kind.
    """
    killed: Counter[str] = Counter()
    rng = random.Random(seed)
    while run.going() and not any((run.path / "checkpoints").glob("step-*")):
        time.sleep(0.1)
    began, minute = time.monotonic(), 0
    due = schedule(seed, 0)
    while run.going() and time.monotonic() - began < LONGEST_SECONDS:
        run.meddler.look()
        now = time.monotonic() - began
        if not due:
            minute += 1
            due = schedule(seed, minute)
        if now < minutes * MINUTE and due[0][0] <= now:
            kind = due.pop(0)[1]
            struck = strike(run, kind, rng)
            killed[kind] += struck and kind in KINDS
            say(f"{now:7.1f} s  {kind}" + ("" if struck else ": none is there"), flush=True)
        time.sleep(0.1)
    return +killed


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True, encoding_errors="replace")


def accounts(path: Path) -> dict[str, int]:
    """What Redis took against what the disk has."""
    rundir = RunDir.open(path)
    with EmbeddedRedis(rundir.redis) as server, _client(server.url) as client:
        prefix = f"rlhp:{{{rundir.name}}}:"
        counts: Any = client.hgetall(f"{prefix}counts")
        entries: Any = client.xrange(f"{prefix}answers")
    events = PreferenceDataset.open(rundir.preferences).events()
    rows_ = Counter((row.query_id, row.labeler or "", row.rev, row.event) for row in events)
    kept = {
        (each["id"], each["by"], int(each["rev"]), each["ev"])
        for _, each in entries
        if each["id"] != NOBODY_ASKED
    }
    answered = Counter(row.query_id for row in events if row.event == "answer")
    pairs = Counter(
        frozenset((row.first_id, row.second_id)) for row in events if row.event == "answer"
    )
    return {
        "answers": len(answered),
        "lost": int(counts["events"]) - len(rows_) + len(kept - rows_.keys()),
        "duplicated": sum(rows_.values()) - len(rows_) + sum(answered.values()) - len(answered),
        "asked_twice": sum(pairs.values()) - len(pairs),
        "set_aside": int(counts.get("set_aside", 0)),
    }


def measure(*, arm: str, seed: int, steps: int, minutes: float) -> dict[str, Any]:
    """One run, calm or not."""
    with tempfile.TemporaryDirectory(prefix="rlhp-chaos-") as scratch:
        began = time.monotonic()
        run = Run(Path(scratch), seed=seed, steps=steps)
        try:
            killed = torment(run, seed=seed, minutes=minutes if arm == "chaos" else 0.0)
        finally:
            code = run.end()
        took = time.monotonic() - began
        if code != 0:
            for file in (Path(scratch) / "output.txt", run.path / "run.log"):
                print(file.read_text()[-3000:] if file.exists() else f"no {file.name}")
            raise SystemExit(f"the run ended with exit code {code}")
        summary = json.loads((run.path / "summary.json").read_text())
        info = RunDir.open(run.path).info()
        return {
            "arm": arm,
            "seed": seed,
            "env_steps": summary["env_steps"],
            "seconds": round(took),
            "true_return": summary["true_return"],
            "killed": dict(killed),
            "kills": sum(killed.values()),
            "meddled": dict(run.meddler.counts),
            "resumed": info.resumed,
            "restarts": info.restarts,
            **accounts(run.path),
        }


def interval(returns: list[float]) -> tuple[float, float]:
    """Where one more calm run lies in 95 of 100 cases, if they are normal: mean +- t *
    s * sqrt(1 + 1/n).
    """
    from scipy import stats

    values = np.array(returns)
    reach = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / len(values))
    return float(values.mean() - reach), float(values.mean() + reach)


def section() -> str:
    """The table for docs/benchmarks.md: the newest run under kill -9 and the calm ones
    of its length.
    """
    found = rows.read(NAME)
    worst = [row for row in found if row["arm"] == "chaos"][-1]
    calm = [
        r for r in found if r["arm"] == "calm" and abs(r["env_steps"] - worst["env_steps"]) < 2000
    ]
    meddled = worst["meddled"]
    kills = ", ".join(f"{count} x {kind}" for kind, count in worst["killed"].items())
    lines = [
        "## Under kill -9",
        "",
        "    python -m benchmarks.chaos",
        "",
        "Pendulum at the pace of a slow simulator, people's answers given by teachers, page and "
        "clips; one process of every kind killed per minute for twenty minutes (the driver every "
        "fourth), at moments drawn from a seed. Once a minute, too, an entry that nobody wrote is "
        "put into the log and the clock of Redis set to another time (60 s to 25 hours away); "
        "every fourth minute the run is started a second time. Answers are those that Redis took, "
        "against those on disk.",
        "",
        "| run | env steps | minutes | kills | learner restarts, resumes | answers | lost | "
        "doubled | asked twice | set aside | true return |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in [*calm, worst]:
        lines.append(
            f"| {row['arm']} | {row['env_steps']:,} | {row['seconds'] / 60:.0f} | {row['kills']} "
            f"| {row['restarts']}, {row['resumed']} | {row['answers']} | {row['lost']} | "
            f"{row['duplicated']} | {row['asked_twice']} | {row.get('set_aside', 0)} | "
            f"{row['true_return']:.1f} |"
        )
    lines += ["", f"Killed: {kills}."]
    refused = sum(count for what, count in meddled.items() if what.startswith("refused"))
    lines += [
        f"Entries that nobody wrote: {meddled['poison']}, of which {worst['set_aside']} were set "
        f"aside. Clock of Redis set: {meddled['clock']} times. Second owners: "
        f"{meddled['second owners']}, of which {refused} were refused in one line."
    ]
    if len(calm) > 1:
        low, high = interval([row["true_return"] for row in calm])
        inside = "inside" if low <= worst["true_return"] <= high else "outside"
        lines.append(
            f"Its true return lies {inside} the 95 % interval of one more calm run, {low:.0f} to "
            f"{high:.0f}."
        )
    return "\n".join([*lines, "", tables.made([*calm, worst])])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calm", type=int, default=3, metavar="N", help="calm runs first")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long processes are killed")
    parser.add_argument("--steps", type=int, default=52_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print", action="store_true", help="keep no rows")
    arguments = parser.parse_args()
    plan = [("calm", 100 + number) for number in range(arguments.calm)] + [
        ("chaos", arguments.seed)
    ]
    for arm, seed in plan:
        there = [row for row in rows.read(NAME) if (row["arm"], row["seed"]) == (arm, seed)]
        if not arguments.print and any(row["env_steps"] >= arguments.steps for row in there):
            continue
        row = measure(arm=arm, seed=seed, steps=arguments.steps, minutes=arguments.minutes)
        print(json.dumps(row), flush=True)
        if not arguments.print:
            rows.append(NAME, row)


if __name__ == "__main__":
    main()
