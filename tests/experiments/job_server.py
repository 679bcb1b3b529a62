"""A Ray head with a job server, on ports and in a directory of its own, as `ray start
--head` makes it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.fault_parts import descendants

PATIENCE_SECONDS = 120.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def job_server(home: Path, *, cpus: int, env: dict[str, str]) -> Iterator[dict[str, str]]:
    """What a client's environment needs to reach it; `home` is RLHP_HOME of the head,
    `env` more of its environment.
    """
    folder = Path(tempfile.mkdtemp(prefix="rlhp-ray-", dir="/tmp"))  # short: sockets lie in it
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    port, dashboard, *agent = free_ports(5)
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    ray = str(Path(sys.executable).with_name("ray"))
    options = [
        f"--port={port}",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent[0]}",
        f"--dashboard-agent-grpc-port={agent[1]}",
        f"--metrics-export-port={agent[2]}",
        f"--num-cpus={cpus}",
        f"--temp-dir={folder / 'ray'}",
        "--object-store-memory=200000000",
        "--disable-usage-stats",
        "--block",
    ]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    around = {**os.environ, **access, **env, "PATH": path, "RLHP_HOME": str(home)}
    with (folder / "head.log").open("wb") as output:
        head = subprocess.Popen(
            [ray, "start", "--head", *options], env=around, stdout=output, stderr=output
        )
    try:
        _until_it_answers(f"http://127.0.0.1:{dashboard}", head)
        yield {
            **access,
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "RAY_SESSION": str(folder / "ray"),
        }
    finally:
        below = descendants(head.pid)
        head.terminate()
        with suppress(subprocess.TimeoutExpired):
            head.wait(20)
        for pid in [head.pid, *below]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _until_it_answers(address: str, head: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert head.poll() is None, "the head ended"
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it wants a token: it is there
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"nothing answers at {address}")
