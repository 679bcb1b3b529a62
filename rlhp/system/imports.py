"""From `package.module:Name` in a configuration to the object it names: the one place
that imports a user's code.

Modules are looked for among the installed packages and in the working directory, as
`python -m` would.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from operator import attrgetter
from typing import Any

from rlhp.errors import RlhpError
from rlhp.system import objects


def load(name: str, *, key: str) -> Any:
    """The object at `package.module:Name` (or `:Outer.Inner`).

    `key` is the configuration key that holds `name`; each ValueError, one line, begins
    with it: for a text that is no such name, a module that cannot be imported, and a
    module without that name.
    """
    module, _, attribute = name.partition(":")
    if not module or not all(part.isidentifier() for part in attribute.split(".")):
        raise RlhpError(f"{key} is named package.module:Name, got {name!r}")
    if module == objects.MODULE:
        return objects.kept(attribute, key=key)
    found = load_module(module, key=key, value=name)
    try:
        return attrgetter(attribute)(found)
    except AttributeError:
        public = [each for each in vars(found) if not each.startswith("_")]
        close = difflib.get_close_matches(attribute, public, n=1)
        hint = (
            f"; did you mean {close[0]!r}?"
            if close
            else f"; {getattr(found, '__file__', module)} is what was found"
        )
        raise RlhpError(f"{key}={name!r}: module {module!r} has no {attribute!r}{hint}") from None


def finds(name: str, value: Any) -> bool:
    """Whether `load` returns this very object."""
    try:
        return load(name, key="") is value
    except RlhpError:
        return False


def load_module(module: str, *, key: str, value: str) -> Any:
    """The module of this name; ValueError where `key`, which says `value`, names one
    that cannot be imported.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()  # a file that was written a moment ago counts
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever the module of a user does when it is imported
        raise RlhpError(
            f"{key}={value!r}: {module!r} cannot be imported ({_line(error)}); it is looked for "
            f"among the installed packages and in {here}"
        ) from error


def _line(error: BaseException) -> str:
    """`Type: message`, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
