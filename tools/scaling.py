"""The cost of exporter and Prometheus by the size of a cluster, written into the page.

An exporter hears a stream of so many tasks, queues and workers; a Prometheus scrapes it at the shipped pace with the
shipped rules. CPU and memory are measured by the kernel for each process, over 90 s in which only scrapes
and rules go on. All rows take seven minutes: ``python -m tools.scaling``.
"""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from tests.scaling.shipped import PAGE, ROOT, changed
from tools.bench.bench import machine
from tools.bench.consumer import EXPORTER, Consumer
from tools.bench.measure import await_quiet, cpu_seconds, memory_mb
from tools.bench.publish import Publisher
from tools.bench.wire import Cluster, Load

from celerymeter.demo.servers import Prometheus, Redis

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
QUEUES = 5
SIZES = ((20, 10), (200, 100), (1000, 1000))
"""Task names, spread over the queues, and workers."""
WARM, SECONDS = 30.0, 90.0
SCRAPE = 10.0
CONFIG = """
global: {{scrape_interval: 10s, evaluation_interval: 15s}}
rule_files: [{rules}/*.yml]
scrape_configs:
  - job_name: celery
    static_configs: [{{targets: ["{target}"], labels: {{cluster: main}}}}]
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one size. ``a_pair`` and ``a_worker`` are series; memory in MB; CPU in seconds a second."""

    pairs: int
    workers: int
    series: int
    a_pair: float
    a_worker: float
    page_mb: float
    exporter_mb: float
    exporter_cpu: float
    prometheus_mb: float
    prometheus_cpu: float

    def row(self) -> str:
        """Of the table."""
        cells = (
            f"{self.pairs:,}",
            f"{self.workers:,}",
            f"{self.series:,}",
            f"{self.page_mb:.1f}",
            f"{self.exporter_mb:.0f}",
            f"{100 * self.exporter_cpu:.2f}",
            f"{self.series / SCRAPE:,.0f}",
            f"{self.prometheus_mb:.0f}",
            f"{100 * self.prometheus_cpu:.1f}",
        )
        return f"| {' | '.join(cells)} |"


def cost(names: int, workers: int) -> Cost:
    """Of a cluster of this size."""
    with tempfile.TemporaryDirectory() as name, Redis(Path(name) / "redis") as redis:
        folder, load = Path(name), Load(names=names, queues=QUEUES, workers=workers, began=time.time(), spacing=0.0005)
        redis.up()
        with Consumer(EXPORTER, redis, folder) as exporter:
            publisher, stream = Publisher(redis.port), Cluster(load).stream(max(20 * names, 5 * workers))
            publisher.paced(stream.messages, stream.total / 20_000)
            publisher.close()
            await_quiet(exporter.pid)
            with prometheus(folder, exporter.url).up() as server:
                time.sleep(WARM)
                before = cpu_seconds(exporter.pid), cpu_seconds(server.pid)
                time.sleep(SECONDS)
                after = cpu_seconds(exporter.pid), cpu_seconds(server.pid)
                return measured(exporter, server, tuple((b - a) / SECONDS for a, b in zip(before, after, strict=True)))


def prometheus(folder: Path, page: str) -> Prometheus:
    """At the shipped pace."""
    config = folder / "prometheus.yml"
    target = page.removeprefix("http://").removesuffix("/metrics")
    config.write_text(CONFIG.format(rules=ROOT / "alerts" / "rules", target=target))
    return Prometheus(folder / "prometheus", config=config)


def measured(exporter: Consumer, server: Prometheus, cpu: tuple[float, ...]) -> Cost:
    """Return what the page and the kernel say in the end."""
    text = requests.get(exporter.url, timeout=30).text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pairs = {found[0] for line in lines if (found := re.search(r'name="[^"]*",queue_name="[^"]*"', line))}
    hosts = {found[0] for line in lines if (found := re.search(r'hostname="[^"]*"', line))}
    return Cost(
        pairs=len(pairs),
        workers=len(hosts),
        series=len(lines),
        a_pair=sum('queue_name="' in line and '{name="' in line for line in lines) / len(pairs),
        a_worker=sum('hostname="' in line for line in lines) / len(hosts),
        page_mb=len(text) / 1e6,
        exporter_mb=memory_mb(exporter.pid, "VmRSS"),
        exporter_cpu=cpu[0],
        prometheus_mb=memory_mb(server.pid, "VmRSS"),
        prometheus_cpu=cpu[1],
    )


def report(costs: list[Cost]) -> str:
    """As Markdown."""
    head = (
        "| (task, queue) | workers | series | page MB | exporter MB | exporter % of a core | samples a second "
        "| Prometheus MB | Prometheus % of a core |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    each = f"A pair has {costs[-1].a_pair:.0f} series, a worker at least {costs[-1].a_worker:.0f}."
    return f"{machine()} {each}\n\n{head}" + "\n".join(one.row() for one in costs)


def main() -> None:
    """Measure and write."""
    made = report([cost(*size) for size in SIZES])
    text = PAGE.read_text()
    found = text[text.index(BEGIN) : text.index(END)]
    PAGE.write_text(changed(text, {found: f"{BEGIN}\n{made}\n"}))
    print(made)


if __name__ == "__main__":
    main()
