"""No part of a password is shown, whatever characters it holds; what can be read in two
ways is refused.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlhp.config import addresses, loading
from rlhp.config.schema import RedisConfig
from rlhp.errors import RlhpError
from rlhp.experiments import jobs
from rlhp.storage import credentials
from rlhp.storage.rundir import RunDir

WORDS = [
    "Zq9",
    "Zq9@Zq8",
    "Zq9/Zq8",
    "Zq9?Zq8",
    "Zq9#Zq8",
    "Zq9:Zq8",
    "Zq9 Zq8",
    "@Zq9",
    "/Zq9",
    "Zq9'Zq8",
    "Zq9%40Zq8",
]
FORMS = [
    "redis://:{}@host:6379/0",
    "rediss://ann:{}@host/0",
    "unix://:{}@/run/redis.sock",
    "redis://host/0?password={}",
    "rediss://:Zq7@host/0?ssl_password={}&db=1",
    "redis://host:1/0?token={}",
]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("form", FORMS)
def test_no_part_of_a_password_is_written_or_shown(
    form: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = form.format(word)
    monkeypatch.setattr(sys, "argv", ["rlhp", "train", "x.yaml", "--set", f"redis.url={url}"])
    seen = [addresses.shown(url)]
    try:
        settings = {
            "env": {"id": "E"},
            "runs_dir": str(tmp_path),
            "name": "a",
            "redis": {"url": url},
        }
        rundir = RunDir.create(loading.parse(settings), "a")
    except RlhpError as error:
        seen.append(str(error))
    else:
        seen += [file.read_text() for file in rundir.path.iterdir() if file.name != "code.diff"]
    try:
        credentials.complete(url)
    except RlhpError as error:
        seen.append(str(error))
    with pytest.raises(RlhpError) as caught:
        jobs.order(
            Path("/there.yaml"),
            name="x",
            sets=[f"redis.url={url}"],
            working_dir=None,
            image=None,
            env=[],
            reserve=[],
        )
    seen.append(str(caught.value))
    assert not [text for text in seen if "Zq" in text]


def test_an_address_without_a_password_stays_as_it_is() -> None:
    for url in (
        "redis://host:6379/0",
        "rediss://ann@host/3?ssl_ca_certs=/a/ca.pem",
        "unix:///run/redis.sock?db=2",
    ):
        assert addresses.check(url) == url
        assert addresses.redact(f"see {url} there") == f"see {url} there"
        assert RedisConfig(url=url).url == url


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "WANDB_API_KEY",
        "DB_PASSWD",
        "rlhp_redis_password",
        "HF_TOKEN",
        "githubToken",
        "PGPASSWORD",
        "MYSQL_PWD",
        "REDISCLI_AUTH",
        "ssh-private-key",
        "APIKEY",
        "SMTP_PASS",
        "A_CREDENTIALS",
    ],
)
def test_variables_that_are_secrets_by_their_name_go_nowhere(name: str) -> None:
    with pytest.raises(RlhpError) as caught:
        jobs._variable(f"{name}=Zq9")
    assert name in str(caught.value)
    assert "Zq9" not in str(caught.value)


def test_other_variables_go_but_for_addresses_with_passwords() -> None:
    for text in (
        "TOKENIZERS_PARALLELISM=false",
        "RLHP_REDIS_PASSWORD_FILE=/run/pw",
        "OMP_NUM_THREADS=2",
        "SEED=3",
    ):
        assert jobs._variable(text) == tuple(text.split("=", 1))
    with pytest.raises(RlhpError):
        jobs._variable("DATABASE=postgres://ann:Zq9@host/0")


STORES = [
    "s3://AKIA:{}@bucket/runs",
    "s3://bucket/runs?secret_key={}",
    "https://host/runs?sv=1&sig={}",
]


@pytest.mark.parametrize("word", ["Zq9", "Zq9@Zq8", "Zq9 Zq8", "Zq9\nZq8", "Zq9+/Zq8="])
@pytest.mark.parametrize("form", STORES)
@pytest.mark.parametrize("section", ["checkpoint", "clips"])
def test_the_address_of_a_store_with_keys_in_it_is_refused_and_not_shown(
    section: str, form: str, word: str
) -> None:
    url = form.format(word)
    with pytest.raises(RlhpError, match=f"(?s){section}.store.*environment") as caught:
        loading.parse({"env": {"id": "E"}, section: {"store": url}})
    assert "Zq" not in str(caught.value)
    for sets in (
        [f"{section}.store={url}"],
        [f"redis.url=redis://h/0?db=1;password={word}"],
        [f"redis.url=//:{word}@h"],
    ):
        with pytest.raises(RlhpError) as caught:
            jobs.order(
                Path("/there.yaml"),
                name="x",
                sets=sets,
                working_dir=None,
                image=None,
                env=[],
                reserve=[],
            )
        assert "Zq" not in str(caught.value)


def test_the_address_of_a_store_without_keys_stays_as_it_is() -> None:
    for url in (
        "s3://bucket/a@b",
        "file:///mnt/disk",
        "s3://bucket/runs?region=eu-west-1&endpoint_override=h:9000",
    ):
        assert (
            loading.parse({"env": {"id": "E"}, "checkpoint": {"store": url}}).checkpoint.store
            == url
        )


@pytest.mark.parametrize(
    "url", ["redis://:Zq9", "redis://host:Zq9", "redis://h/0?db=1;password=Zq9"]
)
def test_an_address_that_lacks_a_part_is_not_shown_with_its_password(url: str) -> None:
    with pytest.raises(RlhpError) as caught:
        addresses.check(url)
    assert "Zq9" not in str(caught.value)
