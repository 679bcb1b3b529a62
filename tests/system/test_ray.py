"""The Ray of a run: what is said about one that cannot be had, and what is not said at
all.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from rlhp.errors import RlhpError
from rlhp.system.ray import _without_noise, ray_cluster, refuse_silence
from tests.small_runs import small

NOTICE = (
    b"[2026-01-01 I 1 1] logging.cc:303: Set ray log level from environment variable "
    b"RAY_BACKEND_LOG_LEVEL to 3\n"
)


def test_of_what_ray_writes_only_the_named_lines_are_dropped(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with _without_noise():
        os.write(2, b"first\n" + NOTICE)
        code = f"import os; os.write(2, {NOTICE!r} + b'from a child\\n')"
        subprocess.run([sys.executable, "-c", code], check=True)
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err.splitlines() == ["first", "from a child", "afterwards"]


def test_nothing_is_lost_when_the_start_fails(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with _without_noise():
            os.write(2, NOTICE + b"why\n")
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        fail()
    assert capfd.readouterr().err == "why\n"


@pytest.mark.parametrize("address", ["auto", "ray://127.0.0.1:1", "local"])
def test_only_an_address_of_host_and_port_is_tried(address: str) -> None:
    refuse_silence(address)


@pytest.mark.parametrize(
    "address",
    [
        "head",
        ":6379",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:0",
        "http://head:8265",
        "ray://head",
        "h:6e3",
    ],
)
def test_what_is_no_address_is_told_before_ray_is_asked(address: str) -> None:
    with pytest.raises(RlhpError, match=r"ray\.address is HOST:PORT") as caught:
        refuse_silence(address)
    assert repr(address) in str(caught.value)


def test_a_name_that_no_host_can_have_is_nobody() -> None:
    with pytest.raises(ConnectionError, match="nothing answers there"):
        refuse_silence("a" * 70 + ":6379")


def test_somebody_who_listens_is_answer_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        refuse_silence(address)
    with pytest.raises(
        ConnectionError,
        match=rf"^ray\.address={address}: nothing answers there \(.*\); start the head",
    ):
        refuse_silence(address)


@pytest.mark.usefixtures("ray_session")
def test_a_ray_that_runs_already_is_used_and_left_running() -> None:
    import ray

    with ray_cluster(small(), cpus=1):
        assert ray.is_initialized()
    assert ray.is_initialized()
