"""Tiny numbers as zeros: in a block, and not after it."""

from __future__ import annotations

import pytest

from rlhp.system.memory import flushed, flushes


def test_tiny_numbers_are_zeros_in_the_block_alone() -> None:
    assert not flushes()
    with flushed():
        assert flushes()
        with flushed():
            assert flushes()
        assert flushes(), "a block inside leaves the one outside as it was"
    assert not flushes()


def test_a_block_that_fails_leaves_the_thread_as_it_was() -> None:
    with pytest.raises(ValueError, match="no"), flushed():
        raise ValueError("no")
    assert not flushes()
