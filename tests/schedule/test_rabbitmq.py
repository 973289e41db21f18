"""The hook on RabbitMQ: the same families as on Redis, of a real beat and a real worker."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.schedule.beats import BEAT, TASK, start_beat, until
from tests.scrape import ExporterProcess, Scrape
from tests.servers import RabbitMQ
from tests.workers import start_worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SYNC = {"schedule": "sync", "name": TASK}
OF_AN_ENTRY = (
    "due_total",
    "sent_total",
    "failed_total",
    "runs_succeeded_total",
    "runs_failed_total",
    "consecutive_failures",
    "last_sent_timestamp_seconds",
    "last_success_timestamp_seconds",
    "next_due_timestamp_seconds",
)
OF_A_BEAT = ("beat_up", "beat_lag_seconds", "beat_duplicate", "schedule_entries")


def of(page: Scrape, family: str) -> float:
    """A number of the entry; 0 where there is none."""
    return page.get(f"celery_schedule_{family}", **SYNC) or 0


def test_a_beat_on_rabbitmq(tmp_path: Path, stack: ExitStack) -> None:
    """Its tasks are followed to their ends; two at once are seen; a frozen one is down, and its entries were due."""
    broker = stack.enter_context(RabbitMQ(tmp_path / "rabbitmq")).up()
    exporter = stack.enter_context(ExporterProcess(tmp_path, broker.url)).up()
    stack.enter_context(start_worker(broker.url, tmp_path))
    beat = stack.enter_context(start_beat(broker.url, tmp_path, {"sync": 2.0}))
    page = until(exporter, lambda page: of(page, "runs_succeeded_total") >= 2, "two runs that succeed")
    assert [family for family in OF_AN_ENTRY if page.get(f"celery_schedule_{family}", **SYNC) is None] == []
    assert [family for family in OF_A_BEAT if page.get(f"celery_{family}", hostname=BEAT) is None] == []
    assert of(page, "due_total") == of(page, "sent_total")
    with start_beat(broker.url, tmp_path, {"sync": 2.0}, name="second"):
        until(exporter, lambda page: page.get("celery_beat_duplicate", hostname=BEAT) == 1, "two are seen")
    until(exporter, lambda page: page.get("celery_beat_duplicate", hostname=BEAT) == 0, "one is left")
    os.kill(beat.pid, signal.SIGSTOP)
    page = until(exporter, lambda page: page.get("celery_beat_up", hostname=BEAT) == 0, "it is down")
    before = of(page, "sent_total")
    missed = of(page, "due_total") - before
    os.kill(beat.pid, signal.SIGCONT)
    page = until(exporter, lambda page: of(page, "sent_total") > before, "it goes on")
    assert of(page, "due_total") - of(page, "sent_total") >= missed + 5
