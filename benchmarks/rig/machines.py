"""Several machines on one: network namespaces with addresses, host names and process
trees of their own. Needs root.

    with Network() as network:
        head = network.machine("head")
        head.run(["ray", "start", "--head", f"--node-ip-address={head.address}", "--block"])
        head.cut(); head.mend()   # the cable is pulled, and put back
        head.power_off()          # kill -9 of everything on it at once

Files are shared, as on a cluster with a common disk; /tmp/ray and /dev/shm are each
machine's own. The host's own network is not touched: bridge and cables lie in a
namespace too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Self

PROGRAMS = ("ip", "unshare", "mount", "nsenter")
SETUP = """
set -e
hostname {name}
mount -t tmpfs tmpfs /dev/shm
mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray
ip link set lo up
echo up
read -r _
"""
"""A machine lives as long as its first process, which waits here for the end of its
standard input.
"""


def missing() -> str | None:
    """Why machines cannot be made here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"not here: {', '.join(absent)}; apt install iproute2 util-linux"
    made = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "true"], capture_output=True
    )
    return (
        None
        if made.returncode == 0
        else f"this container may make no namespaces: {made.stderr.decode().strip()}"
    )


class Network:
    """A bridge in a namespace of its own; machines are plugged into it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._count = 0
        self._holder = self._stack.enter_context(
            subprocess.Popen(
                ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
        )
        self._stack.callback(self._holder.kill)
        _wait_for_namespace(self._holder.pid)
        self.ip("link", "add", "bridge", "type", "bridge")
        self.ip("link", "set", "bridge", "up")

    def ip(self, *words: str) -> None:
        """`ip` where the bridge is."""
        subprocess.run(
            ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "ip", *words], check=True
        )

    def machine(self, name: str) -> Machine:
        """A new machine with the next address."""
        self._count += 1
        machine = Machine(self, name, number=self._count)
        self._stack.callback(machine.power_off)
        return machine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Every machine is powered off, and nothing stays."""
        self._stack.close()


class Machine:
    """One of them."""

    def __init__(self, network: Network, name: str, *, number: int) -> None:
        self.name = name
        self.address = f"10.77.0.{number}"
        self._network = network
        self._port = f"port{number}"
        spaces = [
            "unshare",
            "--net",
            "--uts",
            "--mount",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        self._unshare = subprocess.Popen(
            [*spaces, "sh", "-c", SETUP.format(name=name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._unshare.stdout is not None
        if self._unshare.stdout.readline() != b"up\n":
            raise OSError(f"the machine {name} did not come up; see what unshare said")
        self._init = int(
            Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text()
        )
        network.ip(
            "link",
            "add",
            self._port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            str(self._init),
        )
        network.ip("link", "set", self._port, "master", "bridge", "up")
        self._ip("addr", "add", f"{self.address}/24", "dev", "eth0")
        self._ip("link", "set", "eth0", "up")
        # leads nowhere, but tells Ray which address is its own
        self._ip("route", "add", "default", "dev", "eth0")

    def command(self, words: Sequence[str]) -> list[str]:
        """What runs these words there."""
        return [
            "nsenter",
            f"--target={self._init}",
            "--net",
            "--uts",
            "--mount",
            "--ipc",
            "--pid",
            "--",
            *words,
        ]

    def run(
        self, words: Sequence[str], *, output: IO[bytes], **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a process there; it ends with the machine."""
        env = {**os.environ, **environment}
        return subprocess.Popen(
            self.command(words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
        )

    def _ip(self, *words: str) -> None:
        subprocess.run(self.command(["ip", *words]), check=True)

    def cut(self) -> None:
        """Pull the cable: packets are lost and nobody is told."""
        self._network.ip("link", "set", self._port, "down")

    def mend(self) -> None:
        """Put it back."""
        self._network.ip("link", "set", self._port, "up")

    def power_off(self) -> None:
        """Kill -9 of its first process, with which the kernel kills all others. Twice
        does nothing.
        """
        with suppress(ProcessLookupError):
            self._unshare.kill()
        self._unshare.wait()
        for pipe in (self._unshare.stdin, self._unshare.stdout):
            if pipe is not None:
                pipe.close()


def _wait_for_namespace(pid: int) -> None:
    """Until the child has left our network."""
    ours = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{pid}/ns/net") == ours:
        if not Path(f"/proc/{pid}").exists():
            sys.exit("unshare ended at once; network namespaces need root")
