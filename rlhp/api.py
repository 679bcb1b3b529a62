"""What the commands `train`, `eval` and `compare` do, for scripts and notebooks.

    import rlhp

    run = rlhp.train({"env": {"id": "Pendulum-v1"}}, sets=["labels.budget=100"])
    run.metrics().plot(x="env_steps", y="reward/fresh_accuracy")
    act = run.policy()
    action = act(obs)  # in any copy of the run's environment, outside of the run

Ray, torch and the parts of a run are imported when a function needs them, after Ray was
told to stay on loopback.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.errors import RlhpError
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from rlhp.system import imports, objects, ray_setup

if TYPE_CHECKING:
    import pandas as pd

    from rlhp.experiments.compare import Comparison
    from rlhp.preferences.dataset import PreferenceDataset
    from rlhp.types import Array

Config = str | Path | Mapping[str, Any] | RunConfig
"""A YAML file, its content as plain data, or what `load_config` returned."""
Watch = Callable[[dict[str, Any]], None]
"""Is handed every row of metrics as it is written."""


class Policy:
    """A trained policy outside of its run."""

    def __init__(self, act: Callable[[Array], Array], spaces: Any) -> None:
        self._act = act
        self._spaces = spaces

    def __call__(self, obs: Any) -> Any:
        """The action for one observation, each as the run's environment has it (of a
        game: the stack of frames).
        """
        row = self._spaces.obs.flatten_one(obs)
        action = self._act(row[None])[0]
        return action.item() if action.ndim == 0 else action


class Run:
    """A run directory: what `train` leaves, also while it still grows."""

    def __init__(self, path: str | Path) -> None:
        """RlhpError where `path` is no run."""
        self._rundir = RunDir.open(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.state})"

    @property
    def path(self) -> Path:
        """Its directory."""
        return self._rundir.path

    @property
    def config(self) -> RunConfig:
        """Everything it was told, defaults included."""
        return self._rundir.config()

    @property
    def state(self) -> str:
        """`created`, `running`, `finished`, `interrupted` or `failed`."""
        return self._rundir.info().state

    @property
    def summary(self) -> dict[str, Any] | None:
        """What it reached, as in summary.json; None before it has ended."""
        file = self.path / "summary.json"
        found: dict[str, Any] | None = json.loads(file.read_bytes()) if file.exists() else None
        return found

    def status(self) -> str:
        """What `rlhp status` says: what it is doing, and why nothing is happening where
        nothing is.
        """
        from rlhp.monitor import status

        return status.report(status.gather(self._rundir))

    def metrics(self) -> pd.DataFrame:
        """Every row so far, one column per metric; docs/configuration.md has their
        units.
        """
        import pandas as pd

        return pd.DataFrame(read_metrics(self._rundir.metrics_file))

    def preferences(self) -> PreferenceDataset:
        """The answers and the segments they are about."""
        from rlhp.preferences.dataset import PreferenceDataset

        return PreferenceDataset.open(self._rundir.preferences)

    def policy(self, *, best: bool = False, explore: bool = False, seed: int = 0) -> Policy:
        """The policy of its newest checkpoint, or of the one with the highest true
        return.

        It acts with its most likely actions; with `explore` it draws them. RlhpError
        where there is no checkpoint yet.
        """
        ray_setup.refuse(starts_ray=False)
        from rlhp import program

        spaces, action_space, make_act = program.policy_of(
            self._rundir, best=best, explore=explore, seed=seed
        )
        return Policy(make_act(SimpleNamespace(single_action_space=action_space)), spaces)

    def evaluate(
        self,
        *,
        episodes: int | None = None,
        explore: bool | None = None,
        seed: int = 0,
        best: bool = False,
    ) -> dict[str, Any]:
        """The true return of its policy over whole episodes, as `rlhp eval` measures
        it.
        """
        ray_setup.refuse(starts_ray=False)
        from rlhp import program

        ours = self.config.evaluation
        return program.evaluate(
            self._rundir,
            episodes=ours.episodes if episodes is None else episodes,
            explore=ours.explore if explore is None else explore,
            seed=seed,
            best=best,
        )

    def resume(
        self, *, sets: Sequence[str] = (), serial: bool = False, on_row: Watch | None = None
    ) -> Run:
        """Go on from its newest checkpoint, as `rlhp train --resume` does; itself."""
        settings = _prepared(self._rundir.config(sets=sets))
        from rlhp import program

        program.train(settings, rundir=self._rundir, resume=True, serial=serial, watch=on_row)
        return self


def load_config(config: Config, *, sets: Sequence[str] = ()) -> RunConfig:
    """A configuration, checked; `sets` ("labels.budget=100") count on top. RlhpError
    names every problem at once.
    """
    if isinstance(config, RunConfig):
        return (
            loading.parse(config.model_dump(mode="json", exclude_unset=True), sets=sets)
            if sets
            else config
        )
    if isinstance(config, Mapping):
        return loading.parse(config, sets=sets)
    return loading.load(config, sets=sets)


def train(
    config: Config,
    *,
    sets: Sequence[str] = (),
    env: Any = None,
    teacher: Any = None,
    reward_module: Any = None,
    name: str | None = None,
    serial: bool = False,
    on_row: Watch | None = None,
) -> Run:
    """Train to the end, or until Ctrl-C, which leaves a checkpoint; the run that it
    made.

    `env`, `teacher` and `reward_module` stand for the config's `env.id`,
    `labels.teacher.name` and `reward.module`: a class or a function, of a module, of a
    notebook or of the script itself; a teacher may be made already. With `serial` all
    parts run in this process and use the object itself; else each process of the run
    has a copy of its own (`rlhp.system.objects`).
    """
    objects_by_key = {"env.id": env, "labels.teacher.name": teacher, "reward.module": reward_module}
    given = {
        key: _named(value, key=key, here=serial)
        for key, value in objects_by_key.items()
        if value is not None
    }
    if name is not None:
        given["name"] = name
    more = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    settings = _prepared(load_config(config, sets=[*sets, *more]))
    from rlhp import program
    from rlhp.run.preflight import check

    check(settings)  # what is refused leaves no run directory
    stem = Path(config).stem if isinstance(config, str | Path) else "run"
    rundir = RunDir.create(settings, stem)
    program.train(rundir.config(), rundir=rundir, serial=serial, watch=on_row)
    return Run(rundir.path)


def evaluate(run: str | Path | Run, **options: Any) -> dict[str, Any]:
    """`Run.evaluate` of this run."""
    return (run if isinstance(run, Run) else Run(run)).evaluate(**options)


def compare(config: Config, *, sets: Sequence[str] = ()) -> Comparison | None:
    """Train from preferences, then on the env reward, and say what share of its gain
    was recovered.

    None where the first was stopped by Ctrl-C.
    """
    settings = _prepared(load_config(config, sets=sets))
    from rlhp.experiments.compare import compare as both

    return both(
        settings, config_name=Path(config).stem if isinstance(config, str | Path) else "run"
    )


def _prepared(settings: RunConfig) -> RunConfig:
    """Before anything imports Ray."""
    settings = ray_setup.on_loopback(settings)
    ray_setup.refuse(starts_ray=settings.ray.address is None)
    return settings


def _named(value: Any, *, key: str, here: bool) -> str:
    """The name by which every process of the run finds an object; with `here` there is
    but this one.
    """
    if isinstance(value, str):
        return value
    makes = isinstance(value, type | functools.partial) or inspect.isroutine(value)
    if key != "labels.teacher.name" and not makes:
        raise RlhpError(
            f"{key} is made several times, so its class or a function that makes it is given; "
            f"got {value!r}, which is made already"
        )
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if (
        module not in (None, "__main__")
        and name.isidentifier()
        and imports.finds(f"{module}:{name}", value)
    ):
        return f"{module}:{name}"
    return objects.share(value) if here else objects.keep(value, key=key)
