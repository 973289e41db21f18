"""A minute of 10 MB/s of hostile events, through real brokers, to an exporter as shipped."""

from __future__ import annotations

import pytest
from tools.hostile import measure


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(400)
@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_a_minute_of_hostile_events_changes_nothing_for_real_ones(broker: str) -> None:
    """Memory stays below 256 MB, scrapes below a second, every real task counts, and the real worker is up."""
    outcome = measure(broker=broker, seconds=60.0)
    assert outcome.bytes > 300_000_000, "too little was published to prove anything"
    assert outcome.peak_mb < 256
    assert outcome.slowest_scrape < 1.0
    assert (outcome.counted, outcome.missed, outcome.worker_up) == (outcome.sent, 0, True)
    assert outcome.errors == []
