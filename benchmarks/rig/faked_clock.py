"""An embedded Redis whose clock can be set while it runs, by libfaketime (`make system`
installs it).

    clock = FakedClock(folder)
    subprocess.run(["rlhp", "train", ...], env={**os.environ, **clock.environment})
    clock.set(ahead=3600)

The server alone believes that clock: no other process of the run has the library.
Monotonic clocks go on.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from rlhp.files import write_whole
from rlhp.queue.embedded import find_server


def library() -> Path | None:
    """Where libfaketime is on this machine; None where it is not."""
    return next(Path("/usr").glob("lib*/*/faketime/libfaketime.so.1"), None)


class FakedClock:
    """The clock of every embedded Redis that is started with `environment`."""

    def __init__(self, folder: Path) -> None:
        """FileNotFoundError where libfaketime is not installed."""
        preload = library()
        if preload is None:
            raise FileNotFoundError(
                "libfaketime.so.1 is not under /usr/lib; install it: apt-get install faketime"
            )
        self._ahead = folder / "ahead"
        self.set(ahead=0)
        server = folder / "redis-server"
        settings = {
            "LD_PRELOAD": preload, "FAKETIME_TIMESTAMP_FILE": self._ahead, "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
        }  # fmt: skip
        words = [f"{name}={shlex.quote(str(value))}" for name, value in settings.items()]
        server.write_text(
            f'#!/bin/sh\n{" ".join(words)} exec {shlex.quote(str(find_server().path))} "$@"\n'
        )
        server.chmod(0o700)
        self.environment = {"RLHP_REDIS_SERVER": str(server)}

    def set(self, *, ahead: int) -> None:
        """So many seconds before the clock of this machine; negative: behind it. It
        holds at the server's next look.
        """
        write_whole(self._ahead, f"{ahead:+d}\n".encode())
