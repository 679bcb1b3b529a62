"""Machines of a bench: an address, a host name and processes of their own; a cable that
can be pulled. Needs root.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.rig.machines import Machine, Network, missing

pytestmark = [
    pytest.mark.optional,  # a container need not let even root make namespaces
    pytest.mark.skipif(missing() is not None, reason=f"machines cannot be made here: {missing()}"),
]

LISTEN = """
import socket
server = socket.create_server(("", 5000))
print("listening", flush=True)
while True:
    link, _ = server.accept()
    link.sendall(socket.gethostname().encode())
    link.close()
"""
ASK = """
import socket, sys
print(socket.create_connection((sys.argv[1], 5000), timeout=2).recv(100).decode())
"""


def asked(machine: Machine, other: Machine) -> str | None:
    """The host name that the other tells; None where it cannot be reached."""
    words = machine.command([sys.executable, "-c", ASK, other.address])
    told = subprocess.run(words, capture_output=True, text=True)
    return told.stdout.strip() if told.returncode == 0 else None


def test_a_cable_is_pulled_and_put_back_and_a_machine_dies_as_a_whole(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with Network() as network, output.open("wb") as file:
        first, second = network.machine("first"), network.machine("second")
        server = second.run([sys.executable, "-c", LISTEN], output=file)
        while "listening" not in output.read_text():
            assert server.poll() is None, output.read_text()
        assert asked(first, second) == "second"
        second.cut()
        assert asked(first, second) is None
        second.mend()
        assert asked(first, second) == "second"
        second.power_off()
        assert server.wait() != 0
        assert asked(first, second) is None
