"""Streams that could fill a memory, since every part is new, and the counters of what the exporter does not keep."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.consumer import EXPORTER, Consumer
from tools.bench.measure import await_quiet, memory_mb
from tools.bench.publish import Publisher
from tools.bench.wire import envelope

from celerymeter.demo.servers import Redis

HOST = "celery@worker-1.example.com"
PACE = 20e6
"""Bytes a second: less than the exporter reads, so that nothing waits in memory."""
STEP = 5000

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many of something; ``events(number, at)`` are those of one of them.

    ``cap`` is the option that bounds it and its default, ``counter`` the metric and labels that count the excess.
    """

    title: str
    size: int
    events: Callable[[int, float], list[Event]]
    cap: tuple[str, int] | None = None
    counter: tuple[str, dict[str, str]] | None = None

    def scaled(self, divisor: int) -> Crowd:
        """The same, so many times smaller, its cap too."""
        cap = (self.cap[0], max(1, self.cap[1] // divisor)) if self.cap else None
        return Crowd(self.title, self.size // divisor, self.events, cap, self.counter)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Memory in MB: when half was sent, at the end, and at its highest."""

    half: float
    end: float
    peak: float
    counted: int
    lost: int


def _orphan(number: int, at: float, *, name: str = "shop.tasks.child", result: str = "'done'") -> list[Event]:
    """A whole life; parent and root are tasks of which nobody hears anything."""
    uuid = f"{number:08x}-5d4b-4b0e-9c1a-0f7b1d1c2b3a"
    family = {"parent_id": f"parent-{number}", "root_id": f"root-{number}"}
    sent = {"hostname": "gen4711@web-1.example.com", "queue": "orders", "routing_key": "orders", "exchange": ""}
    return [
        {"type": "task-sent", "uuid": uuid, "name": name, "timestamp": at, "retries": 0, **family, **sent},
        {"type": "task-received", "uuid": uuid, "name": name, "hostname": HOST, "timestamp": at, **family},
        {"type": "task-started", "uuid": uuid, "hostname": HOST, "timestamp": at},
        {"type": "task-succeeded", "uuid": uuid, "hostname": HOST, "timestamp": at, "runtime": 0.1, "result": result},
    ]


def _endless(number: int, at: float) -> list[Event]:
    return _orphan(number, at)[:2]


def _host(number: int, at: float) -> list[Event]:
    beat = {"type": "worker-heartbeat", "timestamp": at, "pid": 1, "clock": 1, "freq": 2.0, "active": 0}
    return [{**beat, "hostname": f"celery@pod-{number}.example.com", "processed": 0, "loadavg": [0.1, 0.1, 0.1]}]


def _named(number: int, at: float) -> list[Event]:
    return _orphan(number, at, name=f"shop.tasks.generated_{number}")


def _bulky(number: int, at: float) -> list[Event]:
    return _orphan(number, at, result=f"'{number % 10}" + "x" * 20_000)


_FOLDED = "celerymeter_series_folded_total"
CROWDS = (
    Crowd("tasks whose parents are never seen", 300_000, _orphan),
    Crowd(
        "tasks that never end",
        300_000,
        _endless,
        ("--max-tracked-tasks", 100_000),
        ("celerymeter_tracked_tasks_evicted_total", {"reason": "limit"}),
    ),
    Crowd("host names", 100_000, _host, ("--max-workers", 10_000), (_FOLDED, {"label": "hostname"})),
    Crowd("task names", 100_000, _named, ("--max-task-names", 1_000), (_FOLDED, {"label": "name"})),
    Crowd("results of 20 kB", 50_000, _bulky),
)


def run(crowd: Crowd, folder: Path) -> Outcome:
    """One crowd, to an exporter of its own."""
    options = [f"{crowd.cap[0]}={crowd.cap[1]}"] if crowd.cap else []
    with Redis(folder / "redis") as server:
        server.up()
        with Consumer(EXPORTER, server, folder, options=options) as consumer:
            publisher = Publisher(server.port)
            events, marks = 0, []
            for begin, end in ((0, crowd.size // 2), (crowd.size // 2, crowd.size)):
                events += _publish(publisher, crowd, begin, end)
                await_quiet(consumer.pid)
                marks.append(memory_mb(consumer.pid, "VmRSS"))
            publisher.close()
            page = consumer.page()
            counted = page.sum(crowd.counter[0], **crowd.counter[1]) if crowd.counter else 0
            lost = events - page.sum("celerymeter_events_total")
            return Outcome(marks[0], marks[1], memory_mb(consumer.pid), int(counted), int(lost))


def _publish(publisher: Publisher, crowd: Crowd, begin: int, end: int) -> int:
    """So many of a crowd at the pace; how many events these were."""
    events = 0
    for start in range(begin, end, STEP):
        at = time.time()
        bodies = [body for number in range(start, min(end, start + STEP)) for body in crowd.events(number, at)]
        messages = [(_channel(body), envelope(body, "task.multi", {"hostname": body["hostname"]})) for body in bodies]
        publisher.paced(messages, max(0.1, sum(len(message) for _, message in messages) / PACE))
        events += len(messages)
    return events


def _channel(body: Event) -> bytes:
    return f"/0.celeryev/{str(body['type']).replace('-', '.', 1)}".encode()


def measure(crowds: Sequence[Crowd] = CROWDS) -> str:
    """As Markdown."""
    lines = ["| distinct | | MB at half | MB at the end | peak MB | folded or evicted, and counted | lost |"]
    lines.append("|---" * 7 + "|")
    for crowd in crowds:
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(crowd, Path(folder))
        memory = " | ".join(f"{mb:.0f}" for mb in (outcome.half, outcome.end, outcome.peak))
        counted = f"{outcome.counted:,}" if crowd.counter else "-"
        lines.append(f"| {crowd.title} | {crowd.size:,} | {memory} | {counted} | {outcome.lost:,} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"
