"""Where the address of a Redis of one's own comes from, and where its password is never
written.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhp.config.schema import RedisConfig
from rlhp.storage import credentials


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (credentials.URL, credentials.PASSWORD, credentials.PASSWORD_FILE):
        monkeypatch.delenv(name, raising=False)


def test_without_an_address_a_server_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials.address(RedisConfig()) is None
    monkeypatch.setenv(credentials.URL, "redis://host:7000/0")
    assert credentials.address(RedisConfig()) == "redis://host:7000/0"
    assert credentials.address(RedisConfig(url="redis://other:1/0")) == "redis://other:1/0"


def test_a_password_comes_from_the_address_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, file = "redis://host:7000/0", tmp_path / "password"
    file.write_text("from/a file\nand more\n")
    named = RedisConfig(url=url, username="rlhp", password_file=str(file))
    assert credentials.address(named) == "redis://rlhp:from%2Fa%20file@host:7000/0"
    monkeypatch.setenv(credentials.PASSWORD_FILE, str(file))
    assert credentials.complete(url) == "redis://:from%2Fa%20file@host:7000/0"
    monkeypatch.setenv(credentials.PASSWORD, "word")
    assert credentials.address(named) == "redis://rlhp:word@host:7000/0"
    assert credentials.complete("redis://ann:own@host:7000/0") == "redis://ann:own@host:7000/0"
    assert credentials.complete("unix:///run/redis.sock") == "unix://:word@/run/redis.sock"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        ("", "its first line, which is empty"),
        (b"\xff\xfe", "not a text file"),
    ],
)
def test_a_password_file_that_has_none_is_named(
    content: str | bytes | None, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"password: .*{words}"):
        credentials.address(RedisConfig(url="redis://host:1/0", password_file=str(file)))


def test_certificates_become_part_of_the_address(tmp_path: Path) -> None:
    config = RedisConfig(
        url="rediss://host:7000/0?ssl_cert_reqs=required", ca_file=str(tmp_path / "ca.pem")
    )
    found = credentials.address(config)
    assert found == f"rediss://host:7000/0?ssl_cert_reqs=required&ssl_ca_certs={tmp_path}/ca.pem"
    assert credentials.address(RedisConfig(url=found, ca_file="elsewhere")) == found, (
        "said twice is said once"
    )


def test_what_is_written_down_has_no_password() -> None:
    for url in (
        "rediss://ann:secret@host:1/0?ssl_ca_certs=/ca.pem",
        "redis://host:1/0?password=secret&db=1",
    ):
        assert credentials.has_password(url)
        kept = credentials.without_password(url)
        assert "secret" not in kept
        assert not credentials.has_password(kept)
    assert (
        credentials.without_password("rediss://ann:secret@host:1/0?a=b")
        == "rediss://ann@host:1/0?a=b"
    )


def test_a_place_that_cannot_be_written_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLHP_SECRETS_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(
        ValueError,
        match=r"cannot be kept .* set RLHP_SECRETS_DIR .* or give .* redis\.password_file",
    ):
        credentials.keep(tmp_path, "redis://:secret@host:1/0")
    credentials.keep(tmp_path, "redis://host:1/0")
    assert credentials.kept(tmp_path) is None


@pytest.mark.parametrize("where", ["password_file", "ca_file"])
def test_a_file_in_the_home_of_nobody_is_refused_by_name(where: str) -> None:
    named = RedisConfig.model_validate({"url": "rediss://host:1/0", where: "~no-such-user/file"})
    with pytest.raises(ValueError, match=r"~no-such-user/file .* in full"):
        credentials.address(named)


def test_without_a_home_directory_nothing_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RLHP_SECRETS_DIR", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert credentials.kept(tmp_path) is None
    with pytest.raises(ValueError, match=r"no home directory.* set HOME"):
        credentials.keep(tmp_path, "redis://:word@host:1/0")
