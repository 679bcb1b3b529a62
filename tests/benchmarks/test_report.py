"""The page of measurements can be drawn from the rows that are there."""

from __future__ import annotations

import pytest

from benchmarks.report import rows
from benchmarks.report.__main__ import SECTIONS


@pytest.mark.parametrize("name", [name for name, _ in SECTIONS])
def test_every_section_is_drawn_from_its_rows(name: str) -> None:
    if rows.read(name):
        assert dict(SECTIONS)[name]().startswith("## ")
