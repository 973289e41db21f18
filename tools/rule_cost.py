"""The cost of rules for a Prometheus, in CPU time and time per evaluation: folders of rules beside each other.

    git show COMMIT:alerts/rules/… > OLD/…
    python -m tools.rule_cost alerts/rules OLD

The page is the exporter's own, of a cluster with so many pairs of task and queue, in which tasks go on running. One
more Prometheus without rules shows what scraping costs. CPU time is the kernel's, so they may run at the same time.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests
from tests.exposition.golden import BUILD
from tests.tracking.cluster import Cluster, make_settings
from tools.bench.measure import cpu_seconds, memory_mb

from celerymeter.demo.servers import Prometheus
from celerymeter.exposition.page import Page
from celerymeter.model import PollOutcome, QueuesSnapshot, QueueState
from celerymeter.settings import Limits

NAMES, QUEUES, WORKERS = 1000, 4, 200
RUNS = 2000
"""Between two scrapes."""
CONFIG = """
global: {{scrape_interval: 10s, evaluation_interval: 15s, scrape_timeout: 9s}}
rule_files: [{rules}]
scrape_configs:
  - {{job_name: celery, static_configs: [{{targets: ["127.0.0.1:{port}"], labels: {{cluster: main}}}}]}}
  - {{job_name: prometheus, static_configs: [{{targets: ["127.0.0.1:{own}"]}}]}}
"""


class Shop:
    """A cluster whose tasks go on running, and its page."""

    def __init__(self) -> None:
        limits = Limits(task_names=NAMES + 10, task_pairs=NAMES * QUEUES + 10)
        self._cluster = Cluster(make_settings(limits), now=time.time() - 1)
        self._page = Page(self._cluster.tracker, build=BUILD)
        self._dice = random.Random(1)
        self._number = 0
        self.hosts = tuple(f"celery@pod-{number}" for number in range(WORKERS))
        self.text = b""
        for number in range(NAMES * QUEUES):
            self._run(f"shop.task{number % NAMES}", f"queue{number // NAMES}")
        self.go_on()

    def _run(self, name: str, queue: str) -> None:
        self._number += 1
        self._cluster.run(f"id-{self._number}", name, queue, "failed" if self._dice.random() < 0.01 else "succeeded")

    def go_on(self) -> None:
        """Let ten seconds of work happen and write the page."""
        cluster = self._cluster
        cluster.now = time.time()
        for _ in range(RUNS):
            self._run(f"shop.task{self._dice.randrange(NAMES)}", f"queue{self._dice.randrange(QUEUES)}")
        for host in self.hosts:
            cluster.heartbeat(host)
        states = tuple(QueueState(f"queue{number}", self._dice.randrange(9), unacked=3) for number in range(QUEUES))
        cluster.tracker.queues_seen(QueuesSnapshot(cluster.now, states, visibility_timeout=3600.0))
        cluster.tracker.polled(PollOutcome("queues", True, cluster.now, 0.1))
        cluster.tracker.tick(cluster.now)
        self.text = b"".join(self._page.render(cluster.now))


def serve(shop: Shop) -> ThreadingHTTPServer:
    """Serve the newest page on a free port, and let the shop go on every ten seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(shop.text)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    def go_on() -> None:
        while True:
            time.sleep(10)
            shop.go_on()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=go_on, daemon=True).start()
    return server


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a folder of rules: percent of a core, MB, seconds to evaluate every group once, recorded series."""

    rules: str
    cpu: float
    memory: float
    evaluation: float
    recorded: float


def ask(url: str, query: str) -> float:
    """Return the first value of an answer, or 0."""
    found = requests.get(f"{url}/api/v1/query", params={"query": query}, timeout=60).json()["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


def compare(folders: Sequence[str], *, warm: float, seconds: float) -> list[Cost]:
    """Return the cost of each folder, after all windows of five minutes are full."""
    shop = Shop()
    server = serve(shop)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        started: dict[str, Prometheus] = {}
        for at, folder in enumerate(folders):
            home = Path(name) / str(at)
            home.mkdir()
            prometheus = Prometheus(home / "data", config=home / "prometheus.yml")
            rules = f"{Path(folder).resolve()}/*.yml" if folder else ""
            text = CONFIG.format(rules=rules, port=server.server_port, own=prometheus.port)
            (home / "prometheus.yml").write_text(text)
            started[folder] = stack.enter_context(prometheus.up())
        time.sleep(warm)
        before = {folder: cpu_seconds(one.pid) for folder, one in started.items()}
        time.sleep(seconds)
        return [
            Cost(
                folder,
                100 * (cpu_seconds(one.pid) - before[folder]) / seconds,
                memory_mb(one.pid, "VmRSS"),
                ask(one.url, "sum(avg_over_time(prometheus_rule_group_last_duration_seconds[2m]))"),
                ask(one.url, 'count({__name__=~"celery:.+"})'),
            )
            for folder, one in started.items()
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--warm", type=float, default=400)
    parser.add_argument("--seconds", type=float, default=180)
    options = parser.parse_args(arguments)
    costs = compare(["", *options.folders], warm=options.warm, seconds=options.seconds)
    sys.stdout.write(
        "| rules | % of a core | MB | s per evaluation of all groups | recorded series |\n|---|---|---|---|---|\n"
    )
    for cost in costs:
        cells = (cost.rules or "none", f"{cost.cpu:.1f}", f"{cost.memory:.0f}", f"{cost.evaluation:.2f}")
        sys.stdout.write(f"| {' | '.join(cells)} | {cost.recorded:,.0f} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
