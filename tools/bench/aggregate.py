"""The price of monitoring by events and by totals: in a worker's main process, and in the exporter of many workers."""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import redis
from tests.apps.worker_app import make_app
from tests.workers import start_worker
from tools.bench.consumer import EXPORTER, UNLIMITED, Consumer
from tools.bench.measure import await_quiet, cpu_seconds, memory_mb
from tools.bench.publish import Publisher
from tools.bench.wire import Load, envelope, make_stream

from celerymeter.aggregate.member import Member, Options
from celerymeter.aggregate.series import Series
from celerymeter.buckets import RUNTIME_BUCKETS, WAIT_BUCKETS
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

MODES: dict[str, dict[str, Any]] = {
    "no task events": {"events": False},
    "aggregate": {"aggregate": {}},
    "events (`-E`)": {"events": True},
}
SETTLED = 2.5
"""Seconds after the last task that are measured too: more than a heartbeat."""
ALL_ADDED = 120.0
"""Seconds within which the exporter must have added up everything: twice 15 s would be enough on a quiet machine."""
INTERVAL = 2.0
EACH = 4
"""Tasks of a pair between two messages: 100 a second of each worker."""
PAIRS = 50
TASKS_A_MESSAGE = 1000
"""Of a busy worker: 500 tasks a second, a message every 2 s."""
BATCH = 2
"""Events that a prefork worker publishes in one message, in the mean."""
UNTIL_FULL = 15
"""Messages of which one has all series, as every 30 s."""


@dataclass(frozen=True, slots=True)
class Price:
    """The CPU seconds that tasks cost a worker's main process, and the messages that it published."""

    cpu: float
    seconds: float
    published: int


# A worker


def run_worker(mode: str, tasks: int, folder: Path) -> Price:
    """Let a worker do tasks that do nothing; they all wait before the first begins."""
    with Redis(folder / "redis") as server:
        server.up()
        client = redis.Redis(port=server.port)
        with make_app(server.url) as app, app.connection_for_write() as connection:
            app.conf.task_send_sent_event = False
            producer = app.amqp.Producer(connection)
            for _ in range(tasks):
                app.send_task("tests.add", (1, 2), queue="later", producer=producer)
        with start_worker(server.url, folder, concurrency=1, **MODES[mode]) as worker:
            time.sleep(SETTLED)
            client.config_resetstat()
            before, began = cpu_seconds(worker.pid), time.monotonic()
            client.rename("later", "celery")
            while client.llen("celery") or client.hlen("unacked"):
                time.sleep(0.05)
            seconds = time.monotonic() - began
            time.sleep(SETTLED)
            cpu = cpu_seconds(worker.pid) - before
            statistics: Any = client.info("commandstats")
    return Price(cpu, seconds, statistics.get("cmdstat_publish", {}).get("calls", 0))


def measure_worker(*, tasks: int = 5000, rounds: int = 3) -> str:
    """Both modes side by side with none at all, as Markdown."""
    runs: dict[str, list[Price]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for mode in MODES:
                runs[mode].append(run_worker(mode, tasks, Path(folder) / f"{number}-{len(runs[mode])}-{mode[:2]}"))
                print(f"  {mode}: {runs[mode][-1]}", file=sys.stderr, flush=True)
    # The least disturbed run of each: what runs beside on the machine only adds, up to twice of it.
    best = {mode: min(several, key=lambda run: run.cpu) for mode, several in runs.items()}
    spread = max(sorted(run.cpu for run in several)[:2][-1] - best[mode].cpu for mode, several in runs.items())
    base = best["no task events"].cpu
    lines = ["| worker | µs a task | added | messages | messages a second |", "|---" * 5 + "|"]
    for mode, run in best.items():
        added = run.cpu - base
        shown = f"{1e6 * added / tasks:.0f} ({added / base:+.0%})" if added > spread else "none that shows"
        cells = [mode, f"{1e6 * run.cpu / tasks:.0f}", shown if run.cpu != base else "0"]
        cells += [f"{run.published:,.0f}", f"{run.published / (run.seconds + SETTLED):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return (
        f"{tasks:,} tasks that do nothing, prefork with one process. Runs of one mode differ by up to "
        f"{1e6 * spread / tasks:.0f} µs a task. Heartbeats, which Celery always sends, are 0.5 messages a second.\n\n"
        + "\n".join(lines)
        + f"\n\n{measure_counting()}"
    )


# The same without the rest of the worker


def counting(tasks: int) -> float:
    """CPU seconds in which a worker's main process counts so many tasks, their messages included."""
    app = make_app("memory://")
    worker = SimpleNamespace(app=app, consumer=None, options={})
    member = Member(worker, Options())
    task = SimpleNamespace(send_events=True)
    delivery = {"exchange": "", "routing_key": "celery"}
    requests = [
        SimpleNamespace(
            id=f"{number:036d}",
            type="tests.add",
            task=task,
            request_dict={"retries": 0},
            delivery_info=delivery,
            eta=None,
        )
        for number in range(tasks)
    ]
    began = time.process_time()
    for number, request in enumerate(requests):
        member.guarded(partial(member.received, request))
        member.count("task-received", {"uuid": request.id})
        member.count("task-started", {"uuid": request.id})
        member.count("task-succeeded", {"uuid": request.id, "runtime": 0.0001, "result": "3"})
        if number % TASKS_A_MESSAGE == 0:
            json.dumps(member.message())
    return time.process_time() - began


def publishing(tasks: int, url: str) -> float:
    """CPU seconds in which Celery's own dispatcher publishes the events of so many tasks, batched as by a worker."""
    with make_app(url) as app, app.connection_for_write() as connection:
        dispatcher = app.events.Dispatcher(connection, hostname="w1@bench", buffer_group=["task"], buffer_limit=1000)
        began, unsent = time.process_time(), 0
        for number in range(tasks):
            uuid = f"{number:036d}"
            received = {"name": "tests.add", "args": "(1, 2)", "kwargs": "{}", "root_id": uuid, "parent_id": None}
            for event, fields in (
                ("task-received", {**received, "retries": 0, "eta": None, "expires": None}),
                ("task-started", {}),
                ("task-succeeded", {"result": "3", "runtime": 0.0001}),
            ):
                dispatcher.send(event, uuid=uuid, **fields)
                unsent += 1
                if unsent == BATCH:
                    dispatcher.flush()
                    unsent = 0
        return time.process_time() - began


def measure_counting(*, tasks: int = 10_000, repeats: int = 5) -> str:
    """Return the cost of counting and of publishing, as Markdown: the least of several runs, which alternate."""
    with tempfile.TemporaryDirectory() as folder, Redis(Path(folder)) as server:
        server.up()
        pairs = [(counting(tasks), publishing(tasks, server.url)) for _ in range(repeats)]
    ours, celerys = (1e6 * min(times) / tasks for times in zip(*pairs, strict=True))
    return (
        f"Without the rest of the worker, in one process: to count a task takes {ours:.1f} µs, to publish its three "
        f"events as Celery does {celerys:.0f} µs: 1/{celerys / ours:.0f}.\n"
    )


# A large cluster


class Crowd:
    """Aggregating workers that all do the same: `EACH` tasks of every pair between two messages."""

    def __init__(self, workers: int, *, seed: int = 1) -> None:
        self._dice = random.Random(seed)
        self._series = [
            [
                Series(
                    str(n),
                    f"shop.tasks.work_{n}",
                    f"queue-{n % 5}",
                    runtime=len(RUNTIME_BUCKETS),
                    wait=len(WAIT_BUCKETS),
                )
                for n in range(PAIRS)
            ]
            for _ in range(workers)
        ]
        self.rounds = 0

    @property
    def tasks(self) -> int:
        """Tasks so far, in truth."""
        return self.rounds * EACH * PAIRS * len(self._series)

    def messages(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """The heartbeat and the totals of each worker, after one interval more."""
        self.rounds += 1
        for number, every in enumerate(self._series):
            full = (number + self.rounds) % UNTIL_FULL == 0 or self.rounds == 1
            yield self._of_one(number, every, full=full)

    def _of_one(self, number: int, every: list[Series], *, full: bool) -> list[tuple[bytes, bytes]]:
        for series in every:
            series.received += EACH
            series.started += EACH
            series.succeeded += EACH
            series.runtime[self._dice.randrange(5)] += EACH
            series.runtime_sum += EACH * 0.03
            series.wait[self._dice.randrange(5)] += EACH
            series.wait_sum += EACH * 0.5
            series.busy += EACH * 0.03
        done = self.rounds * EACH * PAIRS
        hostname = f"celery@worker-{number}.example.com"
        common = {"hostname": hostname, "utcoffset": 0, "pid": 1, "clock": 2 * self.rounds, "timestamp": time.time()}
        health = {"freq": INTERVAL, "active": 1, "processed": done, "loadavg": [0.5, 0.4, 0.3], "sw_ver": "5.7.0"}
        totals = {
            "version": 1,
            "instance": f"{number:032x}",
            "sequence": self.rounds,
            "full": full,
            "failed": False,
            "age": self.rounds * INTERVAL,
            "begun": done,
            "processed": done,
            "started": done,
            "runtime_bounds": RUNTIME_BUCKETS,
            "wait_bounds": WAIT_BUCKETS,
            "series": {series.index: series.row(0.0) for series in every},
            "unmeasured": {},
            "duplicates": {},
            "folded": {},
        }
        heartbeat = {**common, **health, "type": "worker-heartbeat"}
        event = {**common, "clock": 2 * self.rounds + 1, "type": "celerymeter-totals", "totals": totals}
        return [_message("worker.heartbeat", heartbeat), _message("celerymeter.totals", event)]


def _message(routing_key: str, event: dict[str, Any]) -> tuple[bytes, bytes]:
    headers = {"hostname": event["hostname"]}
    return f"/0.celeryev/{routing_key}".encode(), envelope(event, routing_key, headers)


@dataclass(frozen=True, slots=True)
class Simulated:
    """The exporter on a crowd: CPU seconds while it ran at its own pace, tasks in that time, and memory."""

    cpu: float
    seconds: float
    tasks: int
    counted: int
    sent: int
    """The tasks of all rounds, which must be counted in the end."""
    memory: float
    message: float


def _options() -> Sequence[str]:
    return ("--poll-interval", "1h", "--max-workers", "10000")


def run_crowd(workers: int, rounds: int, folder: Path, *, lost: float = 0.0) -> Simulated:
    """Publish what the workers would, in real time; ``lost`` of the messages vanish until the last round."""
    crowd, dice = Crowd(workers), random.Random(2)
    with (
        Redis(folder / "redis", options=UNLIMITED) as server,
        Consumer(EXPORTER, server.up(), folder, options=_options()) as consumer,
    ):
        publisher = Publisher(server.port)
        publisher.paced([one for pair in crowd.messages() for one in pair], 2 * INTERVAL)
        prepared = [list(crowd.messages()) for _ in range(rounds - 1)]
        tasks, began = crowd.tasks, time.monotonic()
        before = cpu_seconds(consumer.pid)
        sizes = [len(message) for pairs in prepared for pair in pairs for _, message in pair[1:]]
        for pairs in prepared:
            publisher.paced([one for pair in pairs if dice.random() >= lost for one in pair], INTERVAL)
        seconds = time.monotonic() - began
        cpu = cpu_seconds(consumer.pid) - before
        publisher.paced([one for pair in crowd.messages() for one in pair], 2 * INTERVAL)
        wait_until(lambda: _counted(consumer) == crowd.tasks, timeout=ALL_ADDED, interval=1.0, what="all is added up")
        publisher.close()
        counted = _counted(consumer)
        memory = memory_mb(consumer.pid, "VmRSS")
        sent = crowd.tasks
    return Simulated(cpu, seconds, tasks - EACH * PAIRS * workers, counted, sent, memory, sum(sizes) / len(sizes))


def _counted(consumer: Consumer) -> int:
    return int(consumer.page().sum("celery_task_succeeded_total"))


def event_mode(folder: Path, *, tasks: int = 20_000) -> float:
    """CPU seconds of the exporter for one task by events, in the same run."""
    stream = make_stream(Load(tasks=tasks, names=PAIRS, began=time.time() - 10))
    with Redis(folder / "redis", options=UNLIMITED) as server, Consumer(EXPORTER, server.up(), folder) as consumer:
        publisher = Publisher(server.port)
        before = cpu_seconds(consumer.pid)
        publisher.flat_out(stream.messages)
        cpu = await_quiet(consumer.pid) - before
        publisher.close()
    return cpu / tasks


def measure_crowd(*, workers: int = 1000, rounds: int = 9, most: int = 10_000) -> str:
    """A crowd by totals against events, then with losses, then as many as there may be, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        events = min(event_mode(Path(folder) / f"events-{number}") for number in range(3))
        found = run_crowd(workers, rounds, Path(folder) / "crowd")
        lossy = run_crowd(workers, 4, Path(folder) / "lost", lost=0.9)
        memory = run_crowd(most, 2, Path(folder) / "most").memory
    each, cores = found.cpu / found.tasks, found.cpu / found.seconds
    print(f"  {found}, {1e6 * events:.1f} µs a task by events", file=sys.stderr, flush=True)
    lines = [
        f"{workers:,} workers with {PAIRS} pairs of task and queue each, {PAIRS * EACH / INTERVAL:g} tasks a second of "
        f"each worker, in real time: a message has {found.message:,.0f} bytes.",
        "",
        "| what | by events | by totals | ratio |",
        "|---|---|---|---|",
        f"| exporter, CPU µs a task | {1e6 * events:.1f} | {1e6 * each:.2f} | 1/{events / each:.0f} |",
        f"| exporter, cores at {found.tasks / found.seconds:,.0f} tasks a second "
        f"| {events * found.tasks / found.seconds:.2f} | {cores:.3f} | |",
        f"| the same for {most:,} workers, scaled | {events * found.tasks / found.seconds * most / workers:.1f} "
        f"| {cores * most / workers:.2f} | |",
        f"| exporter, MB with {most:,} workers | | {memory:,.0f} | |",
        f"| tasks counted of {lossy.sent:,}, 90 % of the messages lost until the last | | {lossy.counted:,} | |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(measure_worker() if "worker" in sys.argv else measure_crowd())
