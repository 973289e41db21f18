"""Compare the prediction of ``celerymeter capacity`` with what happens: ``python -m tools.capacity_proof``.

A workload of known arrivals and run times runs on many slots; the window is asked how many slots it needed. Then the
same workload runs on half, on exactly, on the upper bound and on one and a half times the predicted slots, each in a
queue of its own, and the share of tasks that started in time is measured. Beside it stands what a replay of the exact
arrivals and run times says, which Prometheus cannot know: an error is one of the prediction or one of what ran.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery
from tests.apps.worker_app import make_app
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Prometheus, Redis
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope
from celerymeter.reports.capacity import CapacityPlanner
from celerymeter.reports.replay import Tasks, count_late
from celerymeter.reports.request import Window

SCRAPE_EVERY = 5
CONFIG = f"""
global: {{{{scrape_interval: {SCRAPE_EVERY}s}}}}
scrape_configs:
  - job_name: celerymeter
    static_configs: [{{{{targets: ["127.0.0.1:{{port}}"]}}}}]
"""
RATE = 2.0
"""Tasks per second outside of the burst."""
BURST = 3.0
MEAN = 1.5
"""Seconds that a task runs."""
MANY_SLOTS = 16


@dataclass(frozen=True)
class Call:
    """A task: when it is sent, in seconds from the start, and how long it runs."""

    at: float
    runs: float


def workload(seconds: float, seed: int = 1) -> list[Call]:
    """Return Poisson arrivals with a burst in the third quarter; run times are spread widely around their mean."""
    dice = random.Random(seed)
    calls, at = [], 0.0
    while at < seconds:
        factor = BURST if 0.5 * seconds <= at < 0.75 * seconds else 1.0
        at += dice.expovariate(RATE * factor)
        calls.append(Call(at, MEAN * dice.lognormvariate(-0.32, 0.8)))
    return calls


def send(app: Celery, calls: Sequence[Call], queues: Sequence[str]) -> None:
    """Send each call to all queues when it is due."""
    begin = time.monotonic()
    for call in calls:
        time.sleep(max(0.0, begin + call.at - time.monotonic()))
        for queue in queues:
            app.send_task("tests.sleep", (call.runs,), queue=queue)


@dataclass(frozen=True)
class Site:
    """The servers of the workload; workers are stopped with ``stack``."""

    app: Celery
    exporter: ExporterProcess
    stack: ExitStack
    folder: Path

    def run(self, calls: Sequence[Call], slots: dict[str, int]) -> Window:
        """Run the calls in each queue with its number of slots; return the window until all have been scraped."""
        url = self.app.conf.broker_url
        for queue, number in slots.items():
            name = f"{queue}@proof"
            options: dict[str, Any] = {"pool": "threads", "concurrency": number, "queues": (queue,)}
            self.stack.enter_context(start_worker(url, self.folder, hostname=name, **options))
        wait_until(lambda: self._slots(slots) == list(slots.values()), timeout=90, what="slots of all queues")
        time.sleep(2 * SCRAPE_EVERY)  # a scrape that shows the slots before the window
        begin = time.time()
        send(self.app, calls, list(slots))
        wait_until(
            lambda: self._ended(slots) == [len(calls)] * len(slots), timeout=900, interval=1, what="the end of all"
        )
        time.sleep(2 * SCRAPE_EVERY + 1)
        return Window(begin, time.time() - 1)

    def _slots(self, queues: Iterable[str]) -> list[float | None]:
        page = self.exporter.scrape()
        return [page.get("celery_queue_pool_slots", queue_name=queue) for queue in queues]

    def _ended(self, queues: Iterable[str]) -> list[float]:
        page = self.exporter.scrape()
        return [page.sum("celery_task_succeeded_total", queue_name=queue) for queue in queues]


def predict(url: str, queue: str, window: Window, target: float) -> dict[str, Any]:
    """Return what the command answers."""
    command = [sys.executable, "-m", "celerymeter", "capacity", "--prometheus-url", url, "--queue", queue]
    command += ["--wait-target", f"{target}", "--objective", "95", "--format", "json"]
    times = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for at in (window.start, window.end))
    command += [word for pair in zip(("--from", "--to"), times, strict=True) for word in pair]
    answer = subprocess.run(command, capture_output=True, check=False)
    if answer.returncode:
        raise SystemExit(answer.stderr.decode() + answer.stdout.decode())
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def exact(calls: Sequence[Call], *, slots: int, target: float) -> float:
    """Return the percentage of calls that start in time on so many slots that lose no time between two tasks."""
    tasks = Tasks([call.at for call in calls], [call.runs for call in calls])
    return round(100 * (1 - count_late(tasks, slots=slots, target=target) / len(calls)), 1)


def prove(seconds: float, target: float, seed: int, folder: Path) -> Iterator[str]:
    """Yield the lines of a table that compares prediction with measurement."""
    calls = workload(seconds, seed)
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(folder / "redis")).up()
        exporter = stack.enter_context(ExporterProcess(folder, redis.url, options=("--inspect-interval", "5s"))).up()
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(port=exporter.port))
        prometheus = stack.enter_context(Prometheus(folder / "prometheus", config=config)).up()
        site = Site(make_app(redis.url), exporter, stack, folder)
        window = site.run(calls, {"observed": MANY_SLOTS})
        answer = predict(prometheus.url, "observed", window, target)
        yield json.dumps(answer)
        predicted = answer["slots"]
        most = answer["slots_at_most"]
        slots = {"half": max(1, predicted // 2), "same": predicted, "more": round(1.5 * predicted)}
        if most not in slots.values():
            slots["most"] = most
        yield f"predicted {predicted} slots ({answer['slots_at_least']} to {most})"
        yield "| queue | slots | predicted | exact | measured | own window |"
        after = site.run(calls, slots)
        with PrometheusClient(PrometheusSettings(prometheus.url)) as client:
            for queue, number in slots.items():
                observed = CapacityPlanner(client, Scope(), window).capacity(
                    "observed", target=target, objective=0.95, slots=number
                )
                measured = CapacityPlanner(client, Scope(), after).capacity(queue, target=target, objective=0.95)
                yield (
                    f"| {queue} | {number} | {observed.replayed_percent}% | "
                    f"{exact(calls, slots=number, target=target)}% | {measured.measured_percent}% | "
                    f"{measured.slots} ({measured.slots_at_least} to {measured.slots_at_most}) |"
                )


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--target", type=float, default=5.0, help="seconds")
    parser.add_argument("--seed", type=int, default=1, help="another one is another day")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in prove(60 * arguments.minutes, arguments.target, arguments.seed, Path(folder)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
