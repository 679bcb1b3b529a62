"""Many runs of one configuration with values drawn from a search space, on Ray Tune:
each trial is a run of its own.

    # configs/sweeps/mine.yaml
    extends: ../halfcheetah.yaml
    search:
      learner.lr: {loguniform: [1e-4, 1e-3]}
      reward.members: {choice: [1, 3, 5]}
      seed: {grid: [0, 1, 2]}

A trial reserves all that its run reserves as one placement group: nothing of it starts
before there is room for all. Its driver, query actor, reward trainer, Redis and
labelers share the group's first bundle, hence one node.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from rlhp import program
from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.run.preflight import check
from rlhp.storage import rundir as places
from rlhp.storage.rundir import RunDir
from rlhp.system.ray import ray_cluster
from rlhp.system.roles import REWARD_TRAINER
from rlhp.workers.resources import bundles, refuse_too_small

METRIC = "true_return"
"""What trials are ranked by: the final policy's mean true return."""
KINDS: dict[str, tuple[int | None, Callable[..., Any]]] = {
    "choice": (None, lambda *values: tune.choice(list(values))),
    "grid": (None, lambda *values: tune.grid_search(list(values))),
    "uniform": (2, tune.uniform),
    "loguniform": (2, tune.loguniform),
    "quniform": (3, tune.quniform),
    "randint": (2, tune.randint),
    "lograndint": (2, tune.lograndint),
}
"""How a value may be drawn -> how many arguments it takes, and Tune's own function."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One run of a sweep, as it ended."""

    name: str
    values: dict[str, Any]
    true_return: float
    """NaN where it failed."""
    run: str
    error: str | None


def load(path: Path, *, sets: Sequence[str]) -> tuple[RunConfig, dict[str, Any]]:
    """The configuration that trials start from, and its search space: dotted key -> how
    it is drawn.

    ConfigError for both at once: a key that is none, a kind that is none, ends that are
    no numbers.
    """
    data, rest = loading.load_data(path, without="search")
    if not isinstance(rest, dict) or not rest:
        raise loading.ConfigError(
            [
                f"{path}: a sweep needs `search:`, a mapping of dotted keys to "
                f"{', '.join(KINDS)}; got {rest!r}"
            ]
        )
    problems = [problem for key, spec in rest.items() if (problem := _problem(str(key), spec))]
    try:
        config = loading.parse(data, sets=sets)
        for key, spec in rest.items():
            if _problem(str(key), spec) is None:
                loading.parse(data, sets=[*sets, f"{key}={json.dumps(_example(spec))}"])
    except loading.ConfigError as error:
        raise loading.ConfigError([*problems, *error.problems]) from None
    if problems:
        raise loading.ConfigError(problems)
    return config, dict(rest)


def sweep(
    config: RunConfig,
    search: Mapping[str, Any],
    *,
    name: str,
    samples: int,
    at_once: int | None,
    say: Callable[[str], None],
) -> list[Trial]:
    """Run all trials, a failed one a second time from its last checkpoint; best first."""
    here = places.home(config.runs_dir).absolute()
    config = config.model_copy(
        update={"runs_dir": str(here), "name": None, "rollout": _all_at_once(config)}
    )
    check(config)
    group = placement(config)
    with ray_cluster(config, cpus=_cpus(config, at_once or 1)):
        refuse_too_small(config, say=say)
        plain = json.loads(json.dumps(config.model_dump(mode="json")))
        trainable = tune.with_resources(
            tune.with_parameters(_trial, plain=plain, sweep=name), group
        )
        tuner = tune.Tuner(
            trainable,
            param_space={key: _drawn(spec) for key, spec in search.items()},
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                num_samples=samples,
                max_concurrent_trials=at_once,
                reuse_actors=False,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(here / ".tune"),
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        )
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        results = tuner.fit()
    trials = [_result(result, here, name) for result in results]
    trials.sort(
        key=lambda trial: -math.inf if math.isnan(trial.true_return) else trial.true_return,
        reverse=True,
    )
    with (here / f"{name}.sweep.jsonl").open("w", encoding="utf-8") as file:
        for trial in trials:
            fields = {
                "trial": trial.name,
                **trial.values,
                METRIC: trial.true_return,
                "error": trial.error,
            }
            file.write(json.dumps(fields) + "\n")
    return trials


def placement(config: RunConfig) -> tune.PlacementGroupFactory:
    """One bundle for the driver and all beside it, one per env runner, per learner, per
    reward model on a GPU.

    RLlib counts on this order: env runner k takes bundle k, learners those after the
    last env runner.
    """
    driver: dict[str, float] = {"CPU": 1.0}
    others = []
    for who, bundle in bundles(config):
        if who == REWARD_TRAINER:
            driver = {**driver, **bundle}
        else:
            others.append(bundle)
    return tune.PlacementGroupFactory([driver, *others], strategy="PACK")


def _trial(values: dict[str, Any], *, plain: dict[str, Any], sweep: str) -> None:
    name = _run_name(sweep, tune.get_context().get_trial_id())
    config = loading.parse(plain, sets=[f"name={json.dumps(name)}", *_sets(values)])
    existing = RunDir.existing(config.runs_dir, name)
    rundir = RunDir.open(existing) if existing is not None else RunDir.create(config, name)

    def report(row: dict[str, Any]) -> None:
        tune.report(
            {key: value for key, value in row.items() if isinstance(value, int | float)}
            | {METRIC: math.nan}
        )

    summary = program.train(
        rundir.config(), rundir=rundir, resume=existing is not None, watch=report
    )
    tune.report({METRIC: summary.true_return, "env_steps": summary.env_steps})


def _result(result: Any, here: Path, sweep: str) -> Trial:
    metrics = result.metrics or {}
    trial_id = str(metrics.get("trial_id") or Path(result.path).name)
    name = _run_name(sweep, trial_id)
    error = None if result.error is None else str(result.error).strip().splitlines()[-1]
    value = metrics.get(METRIC)
    return Trial(
        name=name,
        values=dict(result.config or {}),
        true_return=math.nan if error or value is None else float(value),
        run=str(here / name),
        error=error,
    )


def _run_name(sweep: str, trial_id: str) -> str:
    return f"{sweep}-{trial_id.rpartition('_')[2]}"


def _all_at_once(config: RunConfig) -> Any:
    # a placement group cannot grow
    return config.rollout.model_copy(update={"min_env_runners": None})


def _cpus(config: RunConfig, trials: int) -> int:
    """Of a local Ray: all that so many trials reserve."""
    return trials * math.ceil(
        sum(float(bundle.get("CPU", 0)) for bundle in placement(config).bundles)
    )


def _sets(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _drawn(spec: Mapping[str, Any]) -> Any:
    ((kind, arguments),) = spec.items()
    return KINDS[kind][1](*arguments)


def _example(spec: Mapping[str, Any]) -> Any:
    """A value that may be drawn, to see whether the key takes it."""
    (arguments,) = spec.values()
    return arguments[0]


def _problem(key: str, spec: Any) -> str | None:
    if not isinstance(spec, dict) or len(spec) != 1 or next(iter(spec)) not in KINDS:
        return (
            f"search.{key}: one of {', '.join(KINDS)} with a list, as {{loguniform: [1e-4, "
            f"1e-3]}}, got {spec!r}"
        )
    ((kind, arguments),) = spec.items()
    count = KINDS[kind][0]
    if not isinstance(arguments, list) or not arguments:
        return f"search.{key}: {kind} takes a list, got {arguments!r}"
    if count is None:
        return None
    numbers = [
        each for each in arguments if isinstance(each, int | float) and not isinstance(each, bool)
    ]
    if len(arguments) != count or len(numbers) != count or not arguments[0] < arguments[1]:
        words = "a low end, a high end" + (" and a step" if count == 3 else "")
        return f"search.{key}: {kind} takes {words}, got {arguments!r}"
    if kind.startswith("log") and arguments[0] <= 0:
        return f"search.{key}: {kind} needs ends above 0, got {arguments!r}"
    return None
