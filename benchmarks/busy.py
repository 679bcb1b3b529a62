"""Processes that do nothing but keep cores busy, for what must not depend on load.

python -m benchmarks.busy 2               # until it is interrupted
python -m benchmarks.busy 2 -- make demo  # while the command runs; its exit status is returned
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, help="processes")
    parser.add_argument("command", nargs="*", help="run this beside them; nothing: wait for Ctrl-C")
    given = parser.parse_args()
    with busy(given.count):
        return subprocess.call(given.command or ["sleep", "infinity"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
