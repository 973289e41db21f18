"""The nights in which Berlin changes its clocks, by a real beat whose clock is set to just before each due time."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import pytest
from tests.apps import beat_app
from tests.apps.worker_app import SETTINGS
from tests.schedule.beats import TASK, start_beat, until
from tests.scrape import ExporterProcess, Scrape

from celerymeter.demo.servers import Redis

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

HOUR = 3600.0
ENTRIES = {"hourly": "0 * * * *", "half past two": "30 2 * * *", "half past three": "30 3 * * *"}


class Night:
    """A beat in Berlin, its clock, and the exporter that lives today."""

    def __init__(self, exporter: ExporterProcess, broker_url: str, folder: Path, began: datetime) -> None:
        self._exporter = exporter
        self._clock = folder / "clock"
        self._ahead = 0.0
        self.set_to(began.timestamp())
        settings = {"timezone": "Europe/Berlin", "beat_max_loop_interval": 1}
        env = {SETTINGS: json.dumps(settings), **beat_app.faked_clock(self._clock)}
        self.beat = start_beat(broker_url, folder, ENTRIES, env=env)
        until(exporter, lambda page: len(self._due(page)) == len(ENTRIES), "the schedule is known")

    @property
    def now(self) -> float:
        """By beat's clock."""
        return time.time() + self._ahead

    def set_to(self, at: float) -> None:
        """Set beat's clock."""
        self._ahead = at - time.time()
        self._clock.write_text(f"{self._ahead:+.0f}\n")

    def _due(self, page: Scrape) -> dict[str, float]:
        """Return the time at which each entry is due next, by beat's clock."""
        found = page.by("celery_schedule_next_due_timestamp_seconds", "schedule")
        return {schedule: at + self._ahead for (schedule,), at in found.items()}

    def sent_next(self) -> set[str]:
        """Let the entries that are due first be sent at that time; return which."""
        page = self._exporter.scrape()
        due, before = self._due(page), self._sent(page)
        at = min(due.values())
        first = {name for name in due if due[name] < at + 60}
        assert at > self.now
        self.set_to(at - 4)
        page = until(self._exporter, lambda page: self._newer(page, before) >= first, f"{first} are sent")
        assert self.now >= at - 1
        page = until(self._exporter, lambda page: min(self._due(page).values()) > self.now, "nothing is late")
        assert self._newer(page, before) == first
        assert self._sent(page) == self._counted(page, "due")
        return first

    def _newer(self, page: Scrape, before: dict[str, float]) -> set[str]:
        return {name for name, number in self._sent(page).items() if number > before[name]}

    def _sent(self, page: Scrape) -> dict[str, float]:
        return self._counted(page, "sent")

    def _counted(self, page: Scrape, what: str) -> dict[str, float]:
        return {name: page.get(f"celery_schedule_{what}_total", schedule=name, name=TASK) or 0 for name in ENTRIES}


@pytest.mark.parametrize(
    "began",
    [datetime(2026, 10, 25, 0, 10, tzinfo=timezone.utc), datetime(2027, 3, 28, 0, 10, tzinfo=timezone.utc)],
    ids=["winter begins", "summer begins"],
)
def test_beat_sends_when_the_hook_said_that_it_would(
    exporter: ExporterProcess, redis_server: Redis, tmp_path: Path, stack: ExitStack, began: datetime
) -> None:
    """Each time is reported before, and kept; nothing is late in the hour that is there twice, or not at all."""
    night = Night(exporter, redis_server.url, tmp_path, began)
    stack.callback(night.beat.kill)
    sent: Counter[str] = Counter()
    while night.now < began.timestamp() + 3.2 * HOUR:
        sent.update(night.sent_next())
    assert (sent["half past two"], sent["half past three"]) == (1, 1)
    assert sent["hourly"] >= 3
