"""Many clients, some of which never read: nobody waits for them and nothing grows."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from tests.control.access import bearer
from tests.control_live.feed_clients import run_clients
from tests.control_live.live_api import INTERVAL, LiveApi, running_api

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration


@dataclass
class Measured:
    """Measurements while clients listen: seconds of each kind of request, and resident memory in MiB."""

    seconds: float
    calls: list[float] = field(default_factory=list)
    scrapes: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    clients: float = 0
    """Connected at the end."""

    def run(self, api: LiveApi) -> None:
        """Ask again and again."""
        pid = Path(f"/proc/{api.control.pid}/task/{api.control.pid}/children").read_text().split()[0]
        metrics, own = f"{api.control.url}/monitoring/metrics/realtime", api.control.metrics_url
        with requests.Session() as session:
            session.headers.update(bearer())
            until = time.monotonic() + self.seconds - 1
            while time.monotonic() < until:
                self.calls.append(took(session, metrics))
                self.scrapes.append(took(session, own))
                self.memory.append(resident(pid))
                time.sleep(0.1)
        self.clients = metric(api, "celerymeter_control_feed_clients")


def took(session: requests.Session, url: str) -> float:
    """Seconds that an answer took; 503 where this busy process was too slow a page for Prometheus."""
    begun = time.monotonic()
    assert session.get(url, timeout=30).status_code in (200, 503)
    return time.monotonic() - begun


def resident(pid: str) -> float:
    """MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def metric(api: LiveApi, name: str) -> float:
    """One of the API's own metrics."""
    page = requests.get(api.control.metrics_url, timeout=30).text
    return float(next(line.split()[1] for line in page.splitlines() if line.startswith(f"{name} ")))


def serve_clients(folder: Path, *, readers: int, deaf: int, seconds: float, queues: int) -> tuple[Measured, float]:
    """Serve many clients; returns what was measured, and the longest gap between two updates of any reader."""
    with running_api(folder) as api:
        api.page.queues = {f"queue-number-{n}": n for n in range(queues)}
        wait_until(lambda: len(api.control.get("/monitoring/metrics/realtime").json()["queue_lengths"]) == queues)
        measured = Measured(seconds)
        seen = asyncio.run(
            run_clients(api.feed_url, readers=readers, deaf=deaf, seconds=seconds, meanwhile=lambda: measured.run(api))
        )
        assert min(len(times) for times in seen.updates) >= seconds / INTERVAL - 3
        wait_until(lambda: metric(api, "celerymeter_control_feed_clients") == 0)
        assert "Traceback" not in api.control.log.read_text()
        return measured, seen.longest_gap()


def test_deaf_clients_hold_up_nobody(tmp_path: Path) -> None:
    """Forty clients of which four never read, for some seconds."""
    measured, gap = serve_clients(tmp_path, readers=36, deaf=4, seconds=5, queues=300)

    assert gap < 2.5 * INTERVAL
    assert statistics.median(measured.calls) < 0.1
    assert statistics.median(measured.scrapes) < 0.1
    assert measured.memory[-1] - measured.memory[len(measured.memory) // 3] < 20


@pytest.mark.slow
def test_two_hundred_clients_of_which_twenty_never_read(tmp_path: Path) -> None:
    """For a minute and a half: memory flat, updates on time, answers quick; the deaf are shut down."""
    measured, gap = serve_clients(tmp_path, readers=180, deaf=20, seconds=90, queues=600)
    half = len(measured.memory) // 2
    print(
        f"calls {statistics.median(measured.calls):.4f} s, scrapes {statistics.median(measured.scrapes):.4f} s, "
        f"gap {gap:.2f} s, memory {measured.memory[0]:.0f} → {max(measured.memory):.0f} MiB"
    )

    assert gap < 2.5 * INTERVAL
    assert statistics.median(measured.calls) < 0.1
    assert statistics.median(measured.scrapes) < 0.1
    assert max(measured.memory[half:]) - max(measured.memory[:half]) < 10
    assert measured.clients == 180
