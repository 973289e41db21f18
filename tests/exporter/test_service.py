"""The exporter as a whole, without a broker."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from celerymeter.exporter.service import Exporter, log_outlived
from celerymeter.settings import BrokerSettings, ExporterSettings


def test_threads_that_are_about_to_start_are_not_dead() -> None:
    """A probe in the first milliseconds must not have the process restarted."""
    settings = ExporterSettings(BrokerSettings("redis://127.0.0.1:1/0"), listen="127.0.0.1:0")
    assert Exporter(settings).why_not_healthy() is None


def test_many_runs_that_outlived_their_workers_are_few_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A deploy may kill hundreds of workers at once."""
    log_outlived(Counter({(f"w{number}@host", "export", "reports"): number for number in range(1, 101)}))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "w100@host shut down before 100 runs of export (queue reports) had ended"
    assert lines[10:] == ["other workers shut down before 4095 runs had ended"]


@pytest.mark.parametrize("command", ["exporter", "doctor"])
@pytest.mark.parametrize(
    "url",
    [
        "sqs://AKIA:hush@",
        "confluentkafka://h",
        "redis+cluster://:hush@h:7000",
        "Redis+Sentinel://h:26379/0",
        "redis://127.0.0.1:1/0;redis+cluster://:hush@h:7000",
        "amqp+ssl://h",
    ],
)
def test_a_broker_without_events_is_refused(url: str, command: str) -> None:
    """At once, in one line that names the transports that have events; the exit status is that of a wrong setting.

    For schemes that begin with ``redis+`` kombu would connect to localhost.
    """
    words = [sys.executable, "-m", "celerymeter", command, "--broker-url", url]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 2
    assert "no Celery events over" in ended.stderr
    assert "redis" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "hush" not in ended.stderr
