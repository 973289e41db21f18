"""The exporter as a whole, without a broker."""

from __future__ import annotations

from celerymeter.exporter.service import Exporter
from celerymeter.settings import BrokerSettings, ExporterSettings


def test_threads_that_are_about_to_start_are_not_dead() -> None:
    """Whoever asks in the first milliseconds must not have the process restarted."""
    settings = ExporterSettings(BrokerSettings("redis://127.0.0.1:1/0"), listen="127.0.0.1:0")
    assert Exporter(settings).why_not_healthy() is None
