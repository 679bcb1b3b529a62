"""What a user can cure, apart from what is a fault of this program.

An `RlhpError` becomes one line on the terminal, with exit code 2: the rule, the value
received, the way out. Any other exception is ours: its traceback is in the run's log,
the terminal says where, and the exit code is 1.
"""

from __future__ import annotations

import errno

OF_THE_DISK = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES",
        "EBUSY",
        "EDQUOT",
        "EEXIST",
        "EFBIG",
        "EILSEQ",
        "EIO",
        "EISDIR",
        "ELOOP",
        "EMFILE",
        "EMLINK",
        "ENAMETOOLONG",
        "ENFILE",
        "ENODEV",
        "ENOENT",
        "ENOSPC",
        "ENOTDIR",
        "ENOTEMPTY",
        "ENXIO",
        "EOPNOTSUPP",
        "EPERM",
        "EROFS",
        "ESTALE",
        "ETXTBSY",
        "EXDEV",
    )
)
"""What a file system says of a path that somebody can free, make, move or give rights
to.
"""


UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What data that somebody else wrote can raise where it is read or stored."""


class RlhpError(ValueError):
    """What a user can cure; the message is what the terminal shows. A ValueError, for
    scripts that catch those.
    """


class Unreachable(RlhpError, ConnectionError):
    """A server or a store that does not answer; it may come back."""


class RoleFailed(RlhpError, ChildProcessError):
    """A role of the run met an error that no restart cures; the message is its own."""


class RoleBroken(RuntimeError):
    """A role met a fault of ours; its traceback is in the run's log."""


def one_line(error: BaseException) -> str:
    """Kind and first line of an exception that is told inside another sentence."""
    try:
        text = str(error).strip().splitlines()
    except Exception:  # of somebody's class, whose words fail too
        text = []
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def root(error: BaseException) -> BaseException:
    """What was raised first, where Ray has wrapped what a remote call raised."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def curable(error: BaseException) -> bool:
    """Whether the message alone tells a user what to do: an error of ours, or a path
    that the disk refuses.
    """
    if isinstance(error, RlhpError):
        return True
    return isinstance(error, OSError) and error.filename is not None and error.errno in OF_THE_DISK
