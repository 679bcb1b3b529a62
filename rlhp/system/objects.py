"""Classes of a notebook or of a script itself, for the other processes of a run.

    name = keep(Slider, key="env.id")  # "rlhp_objects:Slider_1f0c..."; goes into the config
    Slider = kept(name, key="env.id")  # in any process of this user on this machine

No module holds such a class under its name, so its code is kept by value (cloudpickle)
in this user's own directory, RLHP_SECRETS_DIR or ~/.local/state/rlhp, and the
configuration has the digest of it. Reading it runs it. That is why it is not a part of
the run directory, which people copy to each other, and why files that somebody else
could have written are refused.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle  # noqa: TID251  (what this module is for, within one user's own directory)

from rlhp.errors import RlhpError
from rlhp.files import read_regular, state_directory, write_whole

MODULE = "rlhp_objects"
"""Stands for the module in the name of an object."""
MOST_BYTES = 256 * 2**20
_NAME = re.compile(r"[A-Za-z_]\w*_([0-9a-f]{32})")


def share(value: Any) -> str:
    """The name of an object for this process alone, which needs no copy of it."""
    objects = sys.modules.setdefault(MODULE, ModuleType(MODULE))
    label = f"{_label(value)}_{len(vars(objects))}"
    setattr(objects, label, _made(value))
    return f"{MODULE}:{label}"


def keep(value: Any, *, key: str) -> str:
    """Keep an object for this user's other processes; its name. RlhpError, naming the
    config's `key`, for one that cannot be copied.
    """
    try:
        data = cloudpickle.dumps(_made(value))
    except Exception as error:  # whatever a user's object does when it is copied
        raise RlhpError(
            f"{key} is used by several processes, and {value!r} cannot be copied to them "
            f"({type(error).__name__}: {error}); give its class, put it into a module and give "
            "its name (package.module:Name), or train with serial=True"
        ) from error
    name = f"{_label(value)}_{hashlib.sha256(data).hexdigest()[:32]}"
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(folder / f"{name}.pkl", data, mode=0o600)
    return f"{MODULE}:{name}"


def kept(attribute: str, *, key: str) -> Any:
    """The object of this name; RlhpError where this user keeps none, or where somebody
    else may have written it.
    """
    shared = getattr(sys.modules.get(MODULE), attribute, None)
    if shared is not None:
        return shared
    named = _NAME.fullmatch(attribute)
    file = _folder() / f"{attribute}.pkl"
    if named is None or not file.is_file():
        raise RlhpError(
            f"{key}={MODULE}:{attribute} was given as an object by a notebook or a script, and "
            f"this user keeps no copy of it in {file.parent}; put it into a module and give its "
            f"name (package.module:Name)"
        )
    facts = file.stat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise RlhpError(f"{file} may have been written by somebody else: it is not read")
    data = read_regular(file, most=MOST_BYTES)
    if hashlib.sha256(data).hexdigest()[:32] != named[1]:
        raise RlhpError(f"{file} is not what its name says: train again from the notebook")
    try:
        return cloudpickle.loads(data)
    except Exception as error:  # modules that it needs and that are not here, above all
        raise RlhpError(
            f"{key}={MODULE}:{attribute} cannot be made here ({type(error).__name__}: {error}); "
            "put it into a module and give its name (package.module:Name)"
        ) from error


class _Given:
    """An object that is made already, behind the call that would make it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, **_: Any) -> Any:
        return self.value


def _made(value: Any) -> Any:
    return value if callable(value) else _Given(value)


def _label(value: Any) -> str:
    name = getattr(value, "__qualname__", type(value).__name__).rpartition(".")[2]
    return name if name.isidentifier() else "Object"


def _folder() -> Path:
    return state_directory() / "objects"
