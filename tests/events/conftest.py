"""Readers that run in a thread for the length of a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from tests.events.running import Readers


@pytest.fixture
def readers() -> Iterator[Readers]:
    """Starts readers, and stops them after the test: each within a second."""
    with Readers() as started:
        yield started
    assert not [thread for thread in threading.enumerate() if thread.name == "reader"]
