"""A minute of 10 MB/s of hostile events, through real brokers, to an exporter and a control API as shipped."""

from __future__ import annotations

import pytest
from tools.hostile import BROKERS, measure


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(400)
@pytest.mark.parametrize("broker", BROKERS)
def test_a_minute_of_hostile_events_changes_nothing_for_real_ones(broker: str) -> None:
    """Memory stays below 256 MB, replies take less than a second, every real task counts, the real worker is known."""
    outcome = measure(broker=broker, seconds=60.0)
    assert outcome.bytes > 300_000_000, "too little was published to prove anything"
    assert outcome.problems() == []
