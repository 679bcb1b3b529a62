"""Writes the reference of all keys and metrics: `python -m rlhp.cli.reference >
docs/configuration.md`.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

from rlhp.config import errors
from rlhp.config.schema import LEARNERS, RunConfig
from rlhp.storage.metrics import METRICS

_INTRO = """\
# Configuration

Written by `python -m rlhp.cli.reference` from `rlhp/config/schema.py` and
`rlhp/storage/metrics.py`; edit those.

A run is one YAML file. Only `env.id` is required, everything else has a default:

```yaml
# mine.yaml
extends: halfcheetah.yaml       # another file, relative to this one; optional
labels:
  budget: 350                   # groups of keys are merged, everything else replaces
learner: {lr: 1e-4}
```

```
rlhp train mine.yaml --set seed=3 --set labels.budget=1400
```

Mappings that are passed on as they are (`env.kwargs`, `labels.teacher.kwargs`,
`reward.module_kwargs` and `learner.rllib`) are merged between files like groups, and replaced where
the command line gives them as a whole:

```
rlhp train mine.yaml --set env.kwargs.size=3             # one entry
rlhp train mine.yaml --set 'env.kwargs={size: 3}'        # all of them; {} clears
```

The rules of YAML 1.2 hold: `1e-4` is a number, only `true` and `false` are booleans (`on` and `no`
are texts), `null` is nothing. A key written twice, an unknown key or a value out of range is an
error; all errors of a file are reported at once, each with its key, its line and the way out, and
the exit code is 2. The run directory keeps the resolved configuration as `config.yaml`, with
passwords replaced.

## Three arms

| the policy learns from | setting |
|---|---|
| the env reward: the control arm | `--set labels.source=none` |
| a synthetic teacher's preferences | `--set labels.source=oracle` |
| people's preferences | `--set labels.source=human` |

## The paper's ablations

Each is one change to any configuration (Christiano et al. 2017, section 3.3):

| ablation | setting |
|---|---|
| all labels before learning | `--set labels.schedule=offline` |
| random queries | `--set query.selection=random` |
| no ensemble, and random queries | `--set reward.members=1 --set query.selection=random` |
| no L2 penalty | `--set reward.l2=0 --set reward.l2_adaptive=false` |
| no segments | `--set query.segment_length=1` |
| target: regression on true returns | `--set reward.loss=regression` |

## Names from elsewhere

| there | here |
|---|---|
"""

_METRICS = """
## Metrics

`metrics.jsonl` has one JSON object per row, TensorBoard the same numbers under the same names. A
value that does not exist yet is missing or `null`. Counts run over the whole run, resumes included.

| name | unit | meaning |
|---|---|---|
"""


def document() -> str:
    """The whole page."""
    habits = "".join(f"| `{name}` | `{key}` |\n" for name, key in sorted(errors.HABITS.items()))
    parts = [_INTRO, habits]
    groups = errors.sections()
    top = [key for key in errors.all_keys() if "." not in key.name]
    parts.append(_section("The run", inspect.getdoc(RunConfig) or "", top))
    for name, group in groups.items():
        own = [key for key in errors.all_keys() if key.name.rpartition(".")[0] == name]
        for algorithm in dict.fromkeys(key.algorithm for key in own):
            of_it = [key for key in own if key.algorithm == algorithm]
            title, meant = f"`{name}`", group
            if algorithm is not None:
                title += f" with `learner.algorithm: {algorithm}`"
                meant = LEARNERS[algorithm] if name == "learner" else group
            parts.append(_section(title, inspect.getdoc(meant) or "", of_it))
    rows = "".join(
        f"| `{name}` | {unit} | {meaning} |\n" for name, (unit, meaning) in METRICS.items()
    )
    return "".join([*parts, _METRICS, rows])


def _section(title: str, meaning: str, keys: list[errors.Key]) -> str:
    head = (
        f"\n## {title}\n\n{meaning.strip()}\n\n| key | type | default | meaning "
        "|\n|---|---|---|---|\n"
    )
    return head + "".join(
        f"| `{key.name}` | {key.type} | {_default(key)} | "
        f"{key.meaning.replace('|', chr(92) + '|')} |\n"
        for key in keys
    )


def _default(key: errors.Key) -> str:
    return "required" if key.required else f"`{_yaml(key.default)}`"


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    print(document(), end="")
