"""Memory stays flat whatever is new about the events, and what is not kept is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.bench.crowds import CROWDS, Crowd, run

GROWTH = 5.0
"""MB between half of a crowd and all of it: what a Python process varies by."""


@pytest.mark.integration
@pytest.mark.parametrize("crowd", [crowd.scaled(10) for crowd in CROWDS], ids=lambda crowd: crowd.title)
def test_memory_is_flat(crowd: Crowd, tmp_path: Path) -> None:
    """A tenth of what the benchmark sends, under a tenth of the caps."""
    outcome = run(crowd, tmp_path)

    assert outcome.end - outcome.half < GROWTH
    assert outcome.lost == 0
    if crowd.cap is not None:
        excess = crowd.size - crowd.cap[1]
        assert excess <= outcome.counted <= excess + crowd.cap[1] // 20  # tasks are evicted some at a time
