"""A run over several machines that loses one, loses the cable of another for 20 s, and
is given a new one.

    sudo .venv/bin/python -m benchmarks.nodes  # some minutes; rows and a picture
    sudo .venv/bin/python -m benchmarks.nodes --steps 20000 --print

A head without CPUs, two workers, and a Redis that belongs to nobody's Ray: four
machines in network namespaces (`benchmarks.rig.machines`). Three env runners on four
CPUs: once a worker is gone, one has no place until another comes.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from benchmarks.report import rows
from benchmarks.rig.machines import Machine, Network, missing
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.embedded import find_server
from rlhp.storage.metrics import read_metrics

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "nodes.png"
PASSWORD = "for-this-bench-alone"
CUT_SECONDS = 20.0
PATIENCE_SECONDS = 900.0
RUNNER = "ray::ColumnarEnvRunner"
EVERYWHERE = {
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "token",  # what `ray start --head` wants of whoever joins
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Site:
    """Four machines with Ray and Redis on them, and a run on the head."""

    def __init__(self, folder: Path, config: Path, sets: list[str]) -> None:
        self.folder = folder
        self.path = folder / "runs" / "run"
        self.events: list[dict[str, Any]] = []
        self.curve: list[tuple[float, int, float | None]] = []
        """Seconds since the start, env steps, true return lately."""
        self._stack = ExitStack()
        self._config, self._sets = config, sets
        self._driver: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def __enter__(self) -> Self:
        self._network = self._stack.enter_context(Network())
        self.redis = self._network.machine("redis")
        server = [
            "--bind",
            self.redis.address,
            "--requirepass",
            PASSWORD,
            "--appendonly",
            "yes",
            "--port",
            "6379",
        ]
        self._start(self.redis, [str(find_server().path), *server, "--dir", str(self.folder)])
        self.head = self._network.machine("head")
        here = f"--node-ip-address={self.head.address}"
        self._ray(
            self.head, "--head", "--port=6379", here, "--num-cpus=0", "--include-dashboard=false"
        )
        self.until(
            lambda: "Ray runtime started" in (self.folder / "head.log").read_text(), running=False
        )
        self.workers = {name: self.add_worker(name) for name in ("worker-1", "worker-2")}
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add_worker(self, name: str) -> Machine:
        """A machine of two CPUs that joins the cluster."""
        machine = self._network.machine(name)
        self._ray(
            machine,
            f"--address={self.head.address}:6379",
            f"--node-ip-address={machine.address}",
            "--num-cpus=2",
        )
        return machine

    def train(self) -> None:
        """Start the run on the head once both workers are there."""
        address, url = (
            f"{self.head.address}:6379",
            f"redis://:{PASSWORD}@{self.redis.address}:6379/0",
        )
        sets = [
            f"ray.address={address}",
            f"redis.url={url}",
            f"runs_dir={self.folder / 'runs'}",
            "name=run",
        ]
        words = [word for each in (*sets, *self._sets) for word in ("--set", each)]
        self.until(lambda: self._alive_nodes() >= 3, running=False)
        self._driver = self._start(
            self.head, [sys.executable, "-m", "rlhp", "train", str(self._config), *words]
        )
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Since the run was started."""
        return time.monotonic() - self._began

    def env_steps(self) -> int:
        """How far the run is."""
        return max((int(row["env_steps"]) for row in self.rows()), default=0)

    def rows(self) -> list[dict[str, Any]]:
        """Every row of its metrics."""
        return read_metrics(self.path / "metrics.jsonl")

    def until(self, holds: Callable[[], bool], *, running: bool = True) -> None:
        """Wait for something that happens while the run is running."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            self._look()
            if running and self._driver is not None and self._driver.poll() is not None:
                raise SystemExit(f"the run ended too early:\n{self.said()}")
            if time.monotonic() > deadline:
                raise SystemExit(f"waited in vain:\n{self.said()}")
            time.sleep(0.2)

    def _look(self) -> None:
        found = self.rows()
        steps = found[-1]["env_steps"] if found else 0
        if found and (not self.curve or self.curve[-1][1] != steps):
            self.curve.append(
                (round(self.seconds(), 1), steps, found[-1].get("env_runners/episode_return_mean"))
            )

    def goes_on(self, steps: int) -> None:
        """Wait until this many more env steps were made."""
        target = self.env_steps() + steps
        self.until(lambda: self.env_steps() >= target)

    def event(self, what: str, act: Callable[[], object]) -> None:
        """Do it, and note when, and how long the run made no env step afterwards."""
        entry: dict[str, Any] = {"event": what, "at_seconds": round(self.seconds(), 1)}
        act()
        before = entry["env_steps"] = self.env_steps()
        done = self.seconds()
        self.until(lambda: self.env_steps() > before)
        entry["next_step_after_seconds"] = round(self.seconds() - done, 1)
        self.events.append(entry)
        print(
            f"{entry['at_seconds']:7.1f} s  {what}: next env steps "
            f"{entry['next_step_after_seconds']:.1f} s later"
        )

    def cut(self, machine: Machine, seconds: float = CUT_SECONDS) -> None:
        """Its cable is out for a while."""
        machine.cut()
        time.sleep(seconds)
        machine.mend()

    def runners(self, machine: Machine) -> int:
        """Env runners on a machine."""
        listed = subprocess.run(
            machine.command(["ps", "axo", "args"]), capture_output=True, text=True, check=True
        )
        return sum(line.startswith(RUNNER) for line in listed.stdout.splitlines())

    def ended(self) -> int:
        """The exit code of the run, once it has ended by itself."""
        driver = self._driver
        assert driver is not None
        self.until(lambda: driver.poll() is not None, running=False)
        return driver.wait()

    def said(self) -> str:
        """What run and machines said last."""
        files = [*self.folder.glob("*.log"), self.path / "run.log"]
        return "\n".join(
            f"== {file.name}\n{file.read_text()[-2000:]}" for file in files if file.exists()
        )

    def _alive_nodes(self) -> int:
        asked = (
            "import ray; ray.init(address='auto', log_to_driver=False); print(sum(n['Alive'] "
            "for n in ray.nodes()))"
        )
        words, env = self.head.command([sys.executable, "-c", asked]), {**os.environ, **EVERYWHERE}
        told = subprocess.run(words, capture_output=True, text=True, env=env)
        return int(told.stdout.strip() or 0) if told.returncode == 0 else 0

    def _ray(self, machine: Machine, *words: str) -> None:
        memory = "--object-store-memory=200000000"
        self._start(
            machine,
            [sys.executable, "-m", "ray.scripts.scripts", "start", *words, memory, "--block"],
        )

    def _start(self, machine: Machine, words: list[str]) -> subprocess.Popen[bytes]:
        output = self._stack.enter_context((self.folder / f"{machine.name}.log").open("ab"))
        return machine.run(words, output=output, **EVERYWHERE)


def story(site: Site, *, pause_steps: int) -> None:
    """What happens to the run."""
    site.until(lambda: any((row.get("reward/version") or 0) >= 1 for row in site.rows()))
    site.goes_on(pause_steps)
    site.event("kill -9 of everything on worker-1", site.workers["worker-1"].power_off)
    site.goes_on(pause_steps)
    site.event(
        f"the cable of worker-2 out for {CUT_SECONDS:g} s",
        lambda: site.cut(site.workers["worker-2"]),
    )
    site.goes_on(pause_steps)
    site.event(
        "worker-3 joins", lambda: site.workers.update({"worker-3": site.add_worker("worker-3")})
    )
    site.until(lambda: site.runners(site.workers["worker-3"]) > 0)
    site.events.append(
        {"event": "worker-3 has an env runner", "at_seconds": round(site.seconds(), 1)}
    )


def draw(row: dict[str, Any], picture: Path) -> None:
    """Env steps and true return over time, with what happened."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True)
    seconds, steps, returns = zip(*row["curve"], strict=True)
    above.step(seconds, [number / 1000 for number in steps], where="post", color="#08519c")
    above.set_ylabel("env steps (thousands)")
    known = [(at, value) for at, value in zip(seconds, returns, strict=True) if value is not None]
    below.plot(*zip(*known, strict=True), color="#08519c")
    below.set_ylabel("true return")
    below.set_xlabel("seconds since the start")
    for number, event in enumerate(row["events"], start=1):
        for axis in (above, below):
            axis.axvline(event["at_seconds"], color="#cb181d", linewidth=0.8, linestyle=":")
            axis.spines[["top", "right"]].set_visible(False)
        above.annotate(
            str(number), (event["at_seconds"], above.get_ylim()[1]), color="#cb181d", ha="center"
        )
    told = "   ".join(
        f"{number}: {event['event']}" for number, event in enumerate(row["events"], start=1)
    )
    figure.suptitle(told, fontsize=7.5, color="#cb181d")
    figure.tight_layout()
    figure.savefig(picture, dpi=130)


def measure(folder: Path, *, steps: int) -> dict[str, Any]:
    """The whole story, once."""
    sets = ["rollout.num_env_runners=3", f"learner.total_env_steps={steps}"]
    with Site(folder, ROOT / "configs" / "pendulum.yaml", sets) as site:
        site.train()
        story(site, pause_steps=steps // 12)
        if (code := site.ended()) != 0:
            raise SystemExit(f"the run ended with exit code {code}:\n{site.said()}")
        summary = json.loads((site.path / "summary.json").read_text())
        dataset = PreferenceDataset.open(site.path / "preferences")
        return {
            "events": site.events,
            "seconds": round(site.seconds(), 1),
            "env_steps": summary["env_steps"],
            "true_return": summary["true_return"],
            "answers": dataset.counts()["answers"],
            "load": round(os.getloadavg()[0], 1),
            "curve": site.curve,
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=76_000)
    parser.add_argument("--print", action="store_true", help="keep neither row nor picture")
    arguments = parser.parse_args()
    if (reason := missing()) is not None:
        raise SystemExit(f"not here: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="rlhp-nodes-"))
    try:
        row = measure(folder, steps=arguments.steps)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({name: value for name, value in row.items() if name != "curve"}))
    if not arguments.print:
        rows.append("nodes", row)
        draw(row, PICTURE)


if __name__ == "__main__":
    main()
