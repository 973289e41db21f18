"""The process' own metrics are those that client libraries have."""

from __future__ import annotations

import re
import sys

import pytest
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from tests.scrape import Scrape

from celerymeter.exporter.process import process_lines


def theirs() -> str:
    """Return prometheus-client's metrics of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return generate_latest(registry).decode()


def test_names_texts_and_labels_are_those_of_prometheus_client() -> None:
    """Whatever the numbers are: dashboards for any process read them."""
    without_numbers = [re.sub(r" [0-9.e+]+$", "", text, flags=re.MULTILINE) for text in (process_lines(), theirs())]
    assert without_numbers[0] == without_numbers[1]


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_numbers_are_those_of_prometheus_client() -> None:
    """As far as they stand still between two looks."""
    ours, other = Scrape(process_lines()), Scrape(theirs())
    for name in ("process_start_time_seconds", "process_max_fds", "process_open_fds"):
        assert ours.get(name) == pytest.approx(other.get(name), abs=2), name
    for name in ("process_resident_memory_bytes", "process_virtual_memory_bytes", "process_cpu_seconds_total"):
        assert ours.get(name) == pytest.approx(other.get(name), rel=0.3), name
