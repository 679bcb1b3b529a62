"""Thousands of damaged files and messages: each is used and equal to what was written,
or named and passed over.

Never other data without a word, never an exception that is none of ours, never a wait.
More with RLHP_FUZZ=10.
"""

from __future__ import annotations

import json
import logging
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from rlhp.config import loading
from rlhp.errors import RlhpError
from rlhp.files import sealed
from rlhp.learn import checkpoint
from rlhp.learn.checkpoint import Checkpoints, load_state, save_state
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.preferences.exchange.imitation import import_imitation, import_npz
from rlhp.preferences.exchange.label_studio import import_answers
from rlhp.preferences.exchange.tables import export
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue
from rlhp.reward.versions import RewardStore
from rlhp.storage.metrics import MetricsWriter, read_metrics
from rlhp.storage.rundir import RunDir
from rlhp.types import MAGIC, Answer, DecodeError, Segment, decode, encode
from tests.fuzz.damage import damages
from tests.fuzz.scale import times
from tests.preferences.dataset_samples import NESTED, PLAIN, answer, header, segment
from tests.reward.versions import weights

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.ERROR):
        yield


def named(right: bool) -> None:
    """The error says whose it is, and left nothing behind."""
    assert right


def stacked() -> Segment:
    """A segment of stacked pictures, which its message holds as frames."""
    pictures = np.random.default_rng(0).integers(0, 255, (9, 6, 6), np.uint8)
    plain = segment(3)
    stacks = np.stack([pictures[row : row + 3] for row in range(plain.length + 1)])
    fields = {name: getattr(plain, name) for name in Segment.__slots__}
    return Segment(**(fields | {"obs": {"": stacks}}))


# -- messages


@pytest.mark.parametrize(
    "one", [segment(1), segment(2, NESTED), stacked()], ids=["plain", "nested", "stacked"]
)
def test_damaged_segments_are_refused_or_the_same(one: Segment) -> None:
    data = encode(one)
    for wrong in damages(data, times(700), seed=1):
        try:
            assert encode(decode(wrong)) == data
        except DecodeError as error:
            named(error.data == wrong)


@pytest.mark.parametrize(
    "one", [segment(1), segment(2, NESTED), stacked()], ids=["plain", "nested", "stacked"]
)
def test_forged_segments_are_refused_or_whole(one: Segment) -> None:
    """The digest holds: somebody made these on purpose, or an odd program did."""
    data = encode(one)
    start = len(MAGIC) + 16
    (size,) = struct.unpack_from("<I", data, start)
    head, body = data[start + 4 : start + 4 + size], zlib.decompress(data[start + 4 + size :])
    for number, (wrong_head, wrong_body) in enumerate(
        zip(damages(head, times(700), seed=2), damages(body, times(700), seed=3), strict=True)
    ):
        mine = [(wrong_head, body), (head, wrong_body), (wrong_head, wrong_body)][number % 3]
        rest = struct.pack("<I", len(mine[0])) + mine[0] + zlib.compress(mine[1], 1)
        try:
            made = decode(MAGIC + _sum(rest) + rest)
        except DecodeError:
            continue
        assert all(len(leaf) == made.length + 1 for leaf in made.obs.values())
        assert isinstance(made.id, str)


def _sum(rest: bytes) -> bytes:
    from rlhp import types

    return types._sum(rest)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"fields": {}, "depth": {}, "arrays": [["actions", "<f4", [1099511627776]]]}',
        b'{"fields": {}, "depth": {}, "arrays": [["actions", "<f4", [-1, -1]]]}',
        b'{"fields": {}, "depth": {}, "arrays": [["actions", "{(", [1]]]}',
        b'{"fields": {}, "depth": {}, "arrays": [["actions", "O", [1]]]}',
        b'{"fields": {}, "depth": {"": 1e999}, "arrays": []}',
        b'{"fields": {}, "depth": {}, "arrays": [["actions", "<f4", [' + b"9" * 5000 + b"]]]}",
        b'{"fields": 1, "depth": [], "arrays": 3}',
        b"null",
    ],
)
def test_absurd_headers_of_segments_are_refused(header: bytes) -> None:
    rest = struct.pack("<I", len(header)) + header + zlib.compress(b"\0" * 100)
    with pytest.raises(DecodeError, match="a damaged segment"):
        decode(MAGIC + _sum(rest) + rest)


def test_a_megabyte_that_would_be_two_gigabytes_is_not_inflated() -> None:
    inflated = 2 << 30
    header = b'{"fields": {}, "depth": {}, "arrays": [["actions", "|u1", [%d]]]}' % inflated
    bomb = zlib.compressobj(9)
    body = b"".join(bomb.compress(b"\0" * (1 << 20)) for _ in range(64)) + bomb.flush()
    for text in (header, header.replace(b"%d" % inflated, b"100")):
        rest = struct.pack("<I", len(text)) + text + body
        with pytest.raises(DecodeError, match="a damaged segment"):
            decode(MAGIC + _sum(rest) + rest)


GOOD: dict[str, bytes] = {
    "ev": b"answer",
    "by": b"ann",
    "page": b"p",
    "tok": b"1",
    "rev": b"1",
    "ans": b"first",
    "how": b"ok",
    "meta": b'{"kind": "human"}',
    "first": b"a",
    "second": b"b",
    "body": b'{"purpose": "train", "score": 0.5}',
    "made": b"1700000000000",
    "hidden": b"{}",
}


def test_damaged_entries_of_the_answer_log_do_not_stand_before_those_behind_them(
    tmp_path: Path,
) -> None:
    read, names = [], list(GOOD)
    with (
        EmbeddedRedis(tmp_path / "redis") as server,
        redis.Redis.from_url(server.url) as log,
        QueryQueue(server.url, run="demo") as queue,
    ):
        queue.open(cap=9, config_sha256="x")
        pipe = log.pipeline()
        for number, name in enumerate(names * times(40)):
            (wrong,) = damages(GOOD[name], 1, seed=number)
            pipe.xadd("rlhp:{demo}:answers", GOOD | {name: wrong, "id": b"bad"})
            pipe.xadd("rlhp:{demo}:answers", GOOD | {"id": b"good%d" % number})
        pipe.execute()
        while events := queue.events(consumer="trainer"):
            read += events
    good = [event for event in read if event.query.startswith("good")]
    assert [event.query for event in good] == [f"good{n}" for n in range(len(names) * times(40))]
    assert {(event.labeler, event.answer, event.rev) for event in good} == {
        ("ann", Answer.FIRST, 1)
    }
    assert all(event.event in ("answer", "retract", "skip", "drop") for event in read)


# -- what a run keeps


def test_damaged_reward_versions_and_trainer_states(tmp_path: Path) -> None:
    store = RewardStore(tmp_path)
    one, two = weights(1), weights(2)
    store.save(one, trainer_state=b"state 1" * 50)
    store.save(two, trainer_state=b"state 2" * 50)
    newest, state = tmp_path / "version-000002.reward", tmp_path / "trainer.state"
    whole = {newest: newest.read_bytes(), state: state.read_bytes()}
    for wrong in damages(whole[newest], times(600), seed=4):
        newest.write_bytes(wrong)
        found = RewardStore(tmp_path).newest()
        assert found is not None
        assert found.to_bytes() == (two if wrong == whole[newest] else one).to_bytes()
    newest.write_bytes(sealed(b"PK\x03\x04 and no weights"))
    assert (found := RewardStore(tmp_path).newest()) is not None
    assert found.version == 1
    for wrong in damages(whole[state], times(600), seed=5):
        state.write_bytes(wrong)
        assert (
            RewardStore(tmp_path).trainer_state()
            == (b"state 2" if wrong == whole[state] else b"state 1") * 50
        )


def test_damaged_checkpoints(tmp_path: Path) -> None:
    for steps in (100, 200):
        folder = tmp_path / f"step-{steps:09d}"
        folder.mkdir()
        save_state(folder / "algorithm.pt", {"w": np.arange(30.0) * steps, "count": steps})
        files = {"algorithm.pt": checkpoint._fingerprint(folder / "algorithm.pt")}
        facts = {
            "schema": checkpoint.SCHEMA,
            "env_steps": steps,
            "true_return": None,
            "files": files,
        }
        (folder / "rlhp.json").write_text(json.dumps(facts | {"sha256": checkpoint._digest(facts)}))
    newest = tmp_path / "step-000000200"
    for name in ("algorithm.pt", "rlhp.json"):
        whole = (newest / name).read_bytes()
        for wrong in damages(whole, times(500), seed=6):
            (newest / name).write_bytes(wrong)
            try:
                found = Checkpoints(tmp_path, keep=2).newest()
            except RlhpError as error:
                named("checkpoint schema" in str(error))
                continue
            assert found is not None
            steps = 200 if found == newest else 100
            assert found.name == f"step-{steps:09d}"
            assert Checkpoints.counters(found)["env_steps"] == steps
            if found == newest and wrong != whole:
                assert json.loads(wrong) == json.loads(whole), (
                    "only what means the same may be taken"
                )
        (newest / name).write_bytes(whole)
    assert load_state(newest / "algorithm.pt")["count"] == 200


def test_damaged_saved_states_hold_no_surprise(tmp_path: Path) -> None:
    """Without the digest beside them they are refused, or are numbers, texts and arrays
    still.
    """
    save_state(tmp_path / "state", {"w": np.arange(30.0), "names": ["a", "b"]})
    for wrong in damages((tmp_path / "state").read_bytes(), times(300), seed=7):
        (tmp_path / "state").write_bytes(wrong)
        try:
            load_state(tmp_path / "state")
        except RlhpError as error:
            named(str(tmp_path / "state") in str(error))


def filled(path: Path) -> PreferenceDataset:
    dataset = PreferenceDataset.create(path, header=header())
    s = [segment(number) for number in range(4)]
    dataset.add_segments(s)
    dataset.add_events([answer(s[0], s[1]), answer(s[2], s[3], Answer.TIE, labeler="bob")])
    return dataset


def content(dataset: PreferenceDataset) -> list[Any]:
    rows = [(row.key, row.answer, row.first_id, row.second_id) for row in dataset.events()]
    return [rows, [encode(each) for each in dataset.segments(sorted(dataset.segment_ids()))]]


@pytest.mark.parametrize("table", ["segments", "events"])
def test_damaged_parquet_parts(tmp_path: Path, table: str) -> None:
    dataset = filled(tmp_path / "preferences")
    known = content(dataset)
    (part,) = (dataset.path / table).glob("*.parquet")
    whole = part.read_bytes()
    for wrong in damages(whole, times(250), seed=8):
        part.write_bytes(wrong)
        try:
            assert content(PreferenceDataset.open(dataset.path)) == known
        except RlhpError as error:
            named(str(part) in str(error) or "is not in" in str(error))


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    settings = {"env": {"id": "Pendulum-v1"}, "runs_dir": str(tmp_path), "name": "demo", "seed": 3}
    return RunDir.create(loading.parse(settings), "demo")


def test_damaged_metrics(rundir: RunDir) -> None:
    rows = [
        {"env_steps": n * 100, "phase": "learning", "reward/val_loss": n / 7} for n in range(12)
    ]
    with MetricsWriter(rundir, tensorboard=False) as metrics:
        for row in rows:
            metrics.write(row)
    whole = rundir.metrics_file.read_bytes()
    for wrong in damages(whole, times(1500), seed=9):
        rundir.metrics_file.write_bytes(wrong)
        try:
            assert all(row in rows for row in read_metrics(rundir.metrics_file))
        except RlhpError as error:
            named("metrics.jsonl line" in str(error))
    for wrong in damages(whole, times(100), seed=10):
        rundir.metrics_file.write_bytes(wrong)
        with MetricsWriter(rundir, tensorboard=False) as metrics:
            metrics.rewind(len(whole) // 2, env_steps=500)


def test_damaged_run_json(rundir: RunDir) -> None:
    known, whole = rundir.info(), rundir.info_file.read_bytes()
    for wrong in damages(whole, times(800), seed=11):
        rundir.info_file.write_bytes(wrong)
        try:
            found = RunDir.open(rundir.path).info()
        except RlhpError as error:
            named("run.json" in str(error))
        else:
            assert found == known or any(
                "run.json is not what was written" in line for line in rundir.changed()
            )


def test_damaged_configurations(rundir: RunDir) -> None:
    known, whole = rundir.config(), rundir.config_file.read_bytes()
    for wrong in damages(whole, times(150), seed=12):
        rundir.config_file.write_bytes(wrong)
        try:
            found = rundir.config()
        except RlhpError:
            continue
        else:
            assert found == known or any(
                "config.yaml is not what was written" in line for line in rundir.changed()
            )


# -- what others made


@pytest.mark.parametrize("form", ["npz", "imitation"])
def test_damaged_npz_files(tmp_path: Path, form: str) -> None:
    dataset = filled(tmp_path / "preferences")
    known, source = content(dataset), tmp_path / "in.npz"
    export(dataset.path, source, to=form)  # type: ignore[arg-type]  # one of the formats
    for number, wrong in enumerate(damages(source.read_bytes(), times(400), seed=13)):
        source.write_bytes(wrong)
        out = tmp_path / f"out{number}"
        try:
            done = (
                import_npz(source, out)
                if form == "npz"
                else import_imitation(source, out, like=dataset.header)
            )
        except RlhpError as error:
            named(str(source) in str(error))
            named(not out.exists())
        else:
            assert [row[:3] for row in content(PreferenceDataset.open(done.out))[0]] == [
                row[:3] for row in known[0]
            ]


def test_damaged_exports_of_label_studio(tmp_path: Path) -> None:
    dataset = filled(tmp_path / "preferences")
    tasks = []
    for number, row in enumerate(dataset.live()):
        result = [{"from_name": "preference", "type": "choices", "value": {"choices": ["left"]}}]
        said = {
            "completed_by": 3,
            "result": result,
            "created_at": "2026-01-02T03:04:05+02:00",
            "lead_time": 2.5,
        }
        data = {
            "query": row.query_id,
            "first": row.first_id,
            "second": row.second_id,
            "shown_left": "first",
        }
        tasks.append({"id": number, "data": data, "annotations": [said]})
    source = tmp_path / "in.json"
    for number, wrong in enumerate(damages(json.dumps(tasks).encode(), times(500), seed=14)):
        source.write_bytes(wrong)
        out = tmp_path / f"out{number}"
        try:
            import_answers(source, out, like=dataset.path)
        except RlhpError as error:
            named(str(source) in str(error) or str(dataset.path) in str(error))
            named(not out.exists())
        else:
            assert PreferenceDataset.open(out).spaces == PLAIN
