"""A run for people at a real Redis, and a page on it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rlhp.queue.queue import QueryQueue
from tests.labeling.page.parts import Tab, human_run, served


@pytest.fixture
def queue(redis_url: str) -> Iterator[QueryQueue]:
    with human_run(redis_url) as queue:
        yield queue


@pytest.fixture
def tab(queue: QueryQueue) -> Iterator[Tab]:
    with served(queue) as link, Tab(link) as tab:
        yield tab


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """Certificate and key of this machine, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "page.pem").write_bytes(certificate.public_bytes(pem))
    (tmp_path / "page.key").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return str(tmp_path / "page.pem"), str(tmp_path / "page.key")
