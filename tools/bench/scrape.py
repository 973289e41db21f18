"""CPU for a page, against prometheus-client's `generate_latest` over the same data; and scrapes under load."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles

import requests
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.scrape import text_of
from tools.bench.consumer import EXPORTER, Consumer
from tools.bench.measure import await_quiet
from tools.bench.publish import Publisher
from tools.bench.wire import Cluster, Load

from celerymeter.demo.servers import Redis
from celerymeter.exposition.page import Page
from celerymeter.exposition.scrape import Build
from celerymeter.model import Event
from celerymeter.settings import BrokerSettings, ExporterSettings
from celerymeter.tracking.tracker import Tracker

NOW = 1_700_000_000.0
SERIES_A_PAIR = 50
QUEUES = 5


def make_page(series: int) -> Page:
    """A page of about so many series, from tasks that were sent, received, started and ended."""
    tracker = Tracker(ExporterSettings(broker=BrokerSettings(url="redis://")), now=NOW)
    tracker.connected(NOW)
    tracker.apply(list(_events(max(1, series // SERIES_A_PAIR))), NOW + 1)
    return Page(tracker, build=Build(version="0", python="3", celery="5"))


def _events(pairs: int) -> Iterator[Event]:
    worker = "w1@host1"
    for number in range(pairs):
        uuid, name, queue = str(number), f"shop.tasks.work_{number // QUEUES}", f"queue-{number % QUEUES}"
        yield Event(type="task-sent", uuid=uuid, name=name, queue=queue, timestamp=NOW, hostname="gen1@web")
        yield Event(type="task-received", uuid=uuid, name=name, timestamp=NOW, hostname=worker)
        yield Event(type="task-started", uuid=uuid, timestamp=NOW, hostname=worker)
        yield Event(type="task-succeeded", uuid=uuid, runtime=0.2, timestamp=NOW, hostname=worker)


def make_registry(text: str) -> CollectorRegistry:
    """The same series and values, held by the client library's own instruments."""
    disable_created_metrics()
    registry = CollectorRegistry()
    for family in text_string_to_metric_families(text):
        names = tuple(dict.fromkeys(name for sample in family.samples for name in sample.labels if name != "le"))
        if family.type == "histogram":
            bounds = tuple(dict.fromkeys(sample.labels["le"] for sample in family.samples if "le" in sample.labels))
            histogram = Histogram(family.name, family.documentation, names, registry=registry, buckets=bounds)
            for sample in family.samples:
                if sample.name.endswith("_count"):
                    child = histogram.labels(**sample.labels) if names else histogram
                    for _ in range(int(sample.value)):
                        child.observe(0.2)
            continue
        kind = Counter if family.type == "counter" else Gauge
        instrument = kind(family.name, family.documentation, names, registry=registry)
        for sample in family.samples:
            (instrument.labels(**sample.labels) if names else instrument).inc(sample.value)
    return registry


def page_cost(series: int, rounds: int = 15) -> tuple[int, float, float]:
    """Series on the page, and CPU seconds for it: ours, and the client library's."""
    page = make_page(series)
    text = text_of(page, NOW + 2)
    registry = make_registry(text)
    lines = sum(1 for line in text.splitlines() if not line.startswith("#"))
    ours = median(_cpu(lambda: page.render(NOW + 2)) for _ in range(rounds))
    theirs = median(_cpu(lambda: generate_latest(registry)) for _ in range(max(3, rounds // 3)))
    return lines, ours, theirs


def _cpu(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


def measure_pages() -> str:
    """As Markdown."""
    rows = ["| series | ms a page | µs a series | `generate_latest`, µs a series | ratio |", "|---|---|---|---|---|"]
    for wanted in (1_000, 10_000, 50_000):
        lines, ours, theirs = page_cost(wanted)
        each, other = 1e6 * ours / lines, 1e6 * theirs / lines
        rows.append(f"| {lines:,} | {1000 * ours:.1f} | {each:.2f} | {other:.2f} | 1/{other / each:.0f} |")
    return "\n".join(rows) + "\n"


def measure_under_load(*, rate: int = 20_000, seconds: float = 30, every: float = 0.25) -> str:
    """Scrapes of about 10,000 series while events arrive, as Markdown."""
    took: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Redis(Path(folder) / "redis") as server:
        server.up()
        with Consumer(EXPORTER, server, Path(folder)) as consumer:
            load = Load(names=10_000 // SERIES_A_PAIR // QUEUES + 1, queues=QUEUES, began=time.time(), spacing=4 / rate)
            stream = Cluster(load).stream(int(rate * seconds / 4))
            publisher = Publisher(server.port)
            publishing = threading.Thread(target=publisher.paced, args=(stream.messages, seconds))
            publishing.start()
            while publishing.is_alive():
                began = time.monotonic()
                response = requests.get(consumer.url, timeout=30)
                took.append(time.monotonic() - began)
                time.sleep(every)
            publishing.join()
            publisher.close()
            await_quiet(consumer.pid)
            series = sum(1 for line in response.text.splitlines() if not line.startswith("#"))
            lost = stream.total - consumer.seen()
    took = sorted(took[len(took) // 5 :])  # without those before all series were there
    print(f"  {len(took)} scrapes", file=sys.stderr)
    head = "| series | events a second | scrapes | median ms | p99 ms | events lost |\n|---|---|---|---|---|---|\n"
    p99 = quantiles(took, n=100)[98]
    return f"{head}| {series:,} | {rate:,} | {len(took)} | {1000 * median(took):.1f} | {1000 * p99:.1f} | {lost:,} |\n"


if __name__ == "__main__":
    print(measure_pages())
    print(measure_under_load())
