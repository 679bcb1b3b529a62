"""A whole run that people answer: it starts its page, waits for them, and learns from
what they say.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from rlhp.preferences.dataset import PreferenceDataset
from rlhp.reward.versions import RewardStore
from rlhp.storage.rundir import RunDir
from tests.fault_parts import descendants
from tests.labeling.page.parts import ROOT, Tab
from tests.small_runs import SMALL
from tests.sockets import beyond_loopback, listening

LABELS: dict[str, Any] = {
    "source": "human",
    "budget": 8,
    "initial_share": 0.5,
    "instruction": "Prefer large numbers.",
}


OURS = re.compile(r"(redis|valkey)-server |rlhp serve ")
"""Of a run's processes those that listen, Ray's own apart: docs/cluster.md says where
those listen.
"""


@pytest.mark.slow
def test_a_run_starts_its_page_and_learns_from_the_answers_given_there(tmp_path: Path) -> None:
    changes = {
        "labels": LABELS,
        "page": {"port": 0},
        "clips": {"enabled": False},
        "runs_dir": str(tmp_path / "runs"),
    }
    file = tmp_path / "people.yaml"
    file.write_text(yaml.dump({**SMALL, **changes}))
    words = [sys.executable, "-m", "rlhp", "train", str(file), "--name", "people", "--serial"]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        assert driver.stdout is not None
        said = ""
        while not (found := re.search(r"label at (http://127\.0\.0\.1:\d+/#token=\S+)", said)):
            line = driver.stdout.readline()
            assert line, said
            said += line
        ours = [pid for pid, command in descendants(driver.pid).items() if OURS.search(command)]
        sockets = listening(ours)
        assert len(sockets) >= 2, "the page and the embedded Redis"
        assert beyond_loopback(sockets) == []
        answered = _label(found[1], driver)
        said += driver.stdout.read()
        assert driver.wait() == 0, said
    rundir = RunDir.open(tmp_path / "runs" / "people")
    assert rundir.info().state == "finished"
    live = PreferenceDataset.open(rundir.preferences).live()
    assert {(row.labeler, row.labeler_kind) for row in live} == {("local", "human")}
    assert 4 <= len(live) <= LABELS["budget"], "the first half is waited for, the rest is not"
    assert len(live) <= answered
    assert {row.shown_left for row in live} == {"first", "second"}
    newest = RewardStore(rundir.path / "reward").newest()
    assert newest is not None
    assert newest.version >= 1


def _label(link: str, driver: subprocess.Popen[str]) -> int:
    """Answer whatever is asked until the run is over; how many answers counted."""
    answered = 0
    with Tab(link) as tab:
        assert tab.get("/api/run")["instruction"] == "Prefer large numbers."
        while driver.poll() is None:
            try:
                leases = tab.leases()
                for lease in leases:
                    answered += tab.answer(lease, ("left", "right")[answered % 2]) in ("ok", "late")
                time.sleep(0 if leases else 0.1)
            except (httpx.TransportError, AssertionError):
                continue  # the run is ending
    return answered
