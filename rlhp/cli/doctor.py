"""Whether this machine, this installation and this run are fit: one line per check,
with the way out.

Nothing outside a temporary directory is changed.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rlhp.config import addresses, loading
from rlhp.config.schema import RedisConfig, RunConfig
from rlhp.storage import credentials
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from rlhp.system import ray_setup

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One line of the doctor."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    finding: str
    way_out: str = ""

    def __str__(self) -> str:
        text = f"{self.level:<5} {self.subject:<12} {self.finding}"
        return f"{text}\n{'':<19}-> {self.way_out}" if self.way_out else text


def machine() -> Iterator[Check]:
    """What every run needs of this machine and this installation."""
    yield from _guarded("python", python)
    yield from _guarded("packages", packages)
    yield from _guarded("redis", redis_server)
    yield from _guarded("directories", directories)
    yield from _guarded("ray", ray_)
    yield from _guarded("torch", torch_)
    yield from _guarded("mujoco", mujoco_)
    yield from _guarded("video", video_)
    yield from _guarded("disk", disk)
    yield from _guarded("memory", shared_memory)
    yield from _guarded("cpus", processors)


def examine(target: str | Path) -> Iterator[Check]:
    """A run directory, or a config file."""
    path = Path(target)
    if path.is_dir():
        yield from _guarded("run", lambda: run(path))
    else:
        yield from _guarded("config", lambda: config(loading.load(path)))


def python() -> Iterator[Check]:
    """Version and architecture; pip has already refused a Python that is too old."""
    finding = f"{platform.python_version()} on {platform.machine()} {platform.system()}"
    yield Check(level="ok", subject="python", finding=finding)


def packages() -> Iterator[Check]:
    """Installed versions against those this rlhp asks for."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in metadata.requires("rlhp") or []]
    except metadata.PackageNotFoundError:
        finding = "rlhp is not installed, it runs from a checkout: versions cannot be compared"
        yield Check(
            level="warn",
            subject="packages",
            finding=finding,
            way_out="make setup, or pip install -e .",
        )
        return
    wrong = []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    if wrong:
        yield Check(
            level="fail", subject="packages", finding="; ".join(wrong), way_out="make setup"
        )
    else:
        yield Check(
            level="ok",
            subject="packages",
            finding=f"rlhp {metadata.version('rlhp')}, all versions as asked for",
        )


def redis_server() -> Iterator[Check]:
    """The external server where one is named, else a start of the embedded one."""
    from rlhp.queue.queue import ping

    url = credentials.address(RedisConfig())
    if url:
        ping(url)
        yield Check(
            level="ok", subject="redis", finding=f"{addresses.redact(url)} answers (RLHP_REDIS_URL)"
        )
        return
    from rlhp.queue.embedded import EmbeddedRedis, find_server

    server = find_server()
    with tempfile.TemporaryDirectory(prefix="rlhp-doctor-") as directory:
        embedded = EmbeddedRedis(Path(directory))
        try:
            ping(embedded.start())
        finally:
            embedded.stop()
    yield Check(level="ok", subject="redis", finding=f"{server.name} from {server.source} starts")


def directories() -> Iterator[Check]:
    """The home directory, and where Ray's sockets will lie."""
    found = list(ray_setup.problems(starts_ray=True))
    for finding, way_out in found:
        yield Check(level="fail", subject="directories", finding=finding, way_out=way_out)
    if not found:
        yield Check(
            level="ok",
            subject="directories",
            finding="Ray can write to HOME and to its temporary directory",
        )


def ray_() -> Iterator[Check]:
    """Whether Ray can be imported."""
    yield Check(level="ok", subject="ray", finding=importlib.import_module("ray").__version__)


def torch_() -> Iterator[Check]:
    """Which build, which devices."""
    torch = importlib.import_module("torch")
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    finding = f"{torch.__version__}, {build}, " + (", ".join(devices) or "no GPU")
    yield Check(level="ok", subject="torch", finding=finding)


def mujoco_() -> Iterator[Check]:
    """Whether MuJoCo is there, and how it draws; training needs no drawing, people do."""
    try:
        version = metadata.version("mujoco")
    except metadata.PackageNotFoundError:
        finding = "not installed, so its environments cannot be made"
        yield Check(
            level="warn", subject="mujoco", finding=finding, way_out="pip install 'rlhp[envs]'"
        )
        return
    from rlhp.labeling.clips import gl

    routes = [backend for backend in gl.BACKENDS if gl.works(backend)]
    if routes:
        yield Check(
            level="ok", subject="mujoco", finding=f"{version}, draws with MUJOCO_GL={routes[0]}"
        )
    else:
        finding = f"{version}, draws only a schematic view here (training needs none)"
        way_out = f"apt install {gl.PACKAGES['egl']}, or {gl.PACKAGES['osmesa']}"
        yield Check(level="warn", subject="mujoco", finding=finding, way_out=way_out)


def video_() -> Iterator[Check]:
    """Whether clips can be encoded; training on teachers needs none."""
    try:
        version = metadata.version("av")
    except metadata.PackageNotFoundError:
        finding = (
            "PyAV is not installed, so people can be shown only animated PNG (clips.codec=apng)"
        )
        yield Check(level="warn", subject="video", finding=finding, way_out="pip install av")
        return
    codecs = importlib.import_module("av.codec").codecs_available
    have = [
        name for name, encoder in (("VP9", "libvpx-vp9"), ("H.264", "libx264")) if encoder in codecs
    ]
    yield Check(
        level="ok", subject="video", finding=f"PyAV {version}, encodes {' and '.join(have)}"
    )


def disk() -> Iterator[Check]:
    """Room for checkpoints and segments, here and where Ray spills objects."""
    for place in dict.fromkeys([Path.cwd(), Path(tempfile.gettempdir())]):
        free = shutil.disk_usage(place).free / GIB
        level: Literal["ok", "warn", "fail"] = (
            "fail" if free < 0.5 else "warn" if free < 5 else "ok"
        )
        way_out = "" if level == "ok" else "free some, or point runs_dir (or RAY_TMPDIR) elsewhere"
        yield Check(
            level=level, subject="disk", finding=f"{free:.1f} GiB free at {place}", way_out=way_out
        )


def shared_memory() -> Iterator[Check]:
    """Ray's object store lives in /dev/shm and gets slow on disk."""
    place = Path("/dev/shm")
    if not place.is_dir():
        yield Check(level="ok", subject="memory", finding="no /dev/shm on this system")
        return
    free = shutil.disk_usage(place).free / GIB
    if free < 1:
        way_out = (
            "give it more (docker run --shm-size=2g): Ray's object store falls back to disk "
            "otherwise"
        )
        yield Check(
            level="warn",
            subject="memory",
            finding=f"{free:.2f} GiB free in /dev/shm",
            way_out=way_out,
        )
    else:
        yield Check(level="ok", subject="memory", finding=f"{free:.1f} GiB free in /dev/shm")


def processors() -> Iterator[Check]:
    """CPUs this process may use."""
    count = _cpus()
    if count < 2:
        way_out = "a run fits on one, slowly: rollout.num_env_runners=0 samples inside the driver"
        yield Check(level="warn", subject="cpus", finding="1", way_out=way_out)
    else:
        yield Check(level="ok", subject="cpus", finding=str(count))


def config(config: RunConfig) -> Iterator[Check]:
    """The environment of a configuration that is valid in itself, and the CPUs it wants
    here.
    """
    ray_setup.refuse(starts_ray=False)  # these imports bring Ray
    from rlhp.envs.make import probe, variable_length_warning
    from rlhp.labeling.clips.views import check_drawable
    from rlhp.learn.registry import algorithm_of

    yield Check(
        level="ok", subject="config", finding=f"valid, sha256 {loading.sha256(config)[:12]}"
    )
    facts = probe(config.env)
    algorithm_of(config).check_spaces(config, facts.spaces)
    if config.preferences and config.draws_clips:
        yield Check(
            level="ok", subject="clips", finding=f"drawn from: {check_drawable(config.env)}"
        )
    for line in facts.warnings:
        yield Check(level="warn", subject="env", finding=line)
    warning = variable_length_warning(facts)
    if warning is not None and config.preferences:
        yield Check(level="warn", subject="env", finding="episodes may end early", way_out=warning)
    else:
        yield Check(
            level="ok",
            subject="env",
            finding=f"{config.env.id} steps, {facts.episode_limit} steps per episode",
        )
    wanted = config.rollout.num_env_runners * config.rollout.num_cpus_per_env_runner
    if config.ray.address is None and wanted > _cpus():
        finding = (
            f"{config.rollout.num_env_runners} env runners want {wanted:g} CPUs, this "
            f"machine has {_cpus()}"
        )
        yield Check(
            level="warn",
            subject="cpus",
            finding=finding,
            way_out="lower rollout.num_env_runners, or join a cluster",
        )


def run(path: Path) -> Iterator[Check]:
    """What a run left on disk: facts, configuration, metrics, preferences."""
    from rlhp.preferences.dataset import verify

    rundir = RunDir.open(path)
    info = rundir.info()
    yield Check(
        level="ok",
        subject="run",
        finding=f"{rundir.name}: {info.state}, commit {(info.commit or 'unknown')[:12]}",
    )
    rows = read_metrics(rundir.metrics_file)
    yield Check(level="ok" if rows else "warn", subject="metrics", finding=f"{len(rows)} rows")
    if rundir.preferences.is_dir():
        problems = verify(rundir.preferences)
        for problem in problems:
            yield Check(level="fail", subject="preferences", finding=problem)
        if not problems:
            yield Check(level="ok", subject="preferences", finding="every part can be read")
    yield from config(rundir.config())


def _guarded(subject: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """A check that cannot be made is a failed one."""
    try:
        yield from check()
    except Exception as error:
        first, *more = str(error).splitlines() or [type(error).__name__]
        yield Check(level="fail", subject=subject, finding=first)
        yield from (Check(level="fail", subject=subject, finding=line) for line in more)


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
