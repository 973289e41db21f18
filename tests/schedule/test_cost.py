"""The processor time that the hook takes from a beat with a thousand entries."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.apps.worker_app import HOOK
from tests.schedule.beats import start_beat, until
from tests.scrape import ExporterProcess

from celerymeter.demo.processes import Process
from celerymeter.demo.servers import Redis

SECONDS = 240.0
"""Four reports of the whole schedule."""
ENTRIES: dict[str, float | str] = {
    **{f"every {number}": 120.0 for number in range(500)},
    **{f"cron {number}": f"{number % 60} {number % 24} * * *" for number in range(500)},
}

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(SECONDS + 200)]


def processor_seconds(process: Process) -> float:
    """User and system time of a process (proc(5): fields 14 and 15)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_thousand_entries_cost_beat_less_than_a_hundredth_of_a_core(
    exporter: ExporterProcess, redis_server: Redis, tmp_path: Path, stack: ExitStack
) -> None:
    """Compared with a beat without the hook, once both have begun."""
    plain = start_beat(redis_server.url, tmp_path, ENTRIES, name="plain", env={HOOK: "0"})
    stack.callback(plain.kill)
    hooked = start_beat(redis_server.url, tmp_path, ENTRIES)
    stack.callback(hooked.kill)
    until(exporter, lambda page: page.sum("celery_schedule_entries") == len(ENTRIES), "all entries are known")
    before = {beat: processor_seconds(beat) for beat in (plain, hooked)}
    began = time.monotonic()
    time.sleep(SECONDS)  # what is measured is an amount of time
    took = {beat: processor_seconds(beat) - before[beat] for beat in (plain, hooked)}
    elapsed = time.monotonic() - began
    print(f"in {elapsed:.0f} s: {took[hooked]:.2f} s of CPU time with the hook, {took[plain]:.2f} s without")
    assert took[hooked] > 0
    assert (took[hooked] - took[plain]) / elapsed < 0.01
