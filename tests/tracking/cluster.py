"""A make-believe cluster: sends a tracker the events that real workers and producers would."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from celerymeter.model import BeatReport, Event, ScheduleRow, WorkersSnapshot, WorkerState
from celerymeter.settings import BrokerSettings, ExporterSettings, Limits
from celerymeter.tracking.series import TaskSeries
from celerymeter.tracking.tracker import Tracker

START = 1_700_000_000.0
ENDS = ("task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked")
PRODUCER = "gen7@web"
WORKER = "celery@one"
BEAT = "celerybeat@one"


def make_settings(limits: Limits | None = None, **changes: Any) -> ExporterSettings:
    """Settings of an exporter that needs no broker."""
    broker = BrokerSettings(url="redis://localhost")
    return ExporterSettings(broker=broker, limits=limits or Limits(), **changes)


@dataclass
class Cluster:
    """Time stands still unless `pass_time` is called; ``skew`` is how far a host's clock is ahead of ours."""

    settings: ExporterSettings = field(default_factory=make_settings)
    now: float = START
    skew: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = count(1)
        self.processed: dict[str, int] = {}
        self.running: set[tuple[str, object]] = set()
        """Host and uuid of what workers run, in truth."""
        self.tracker = Tracker(self.settings, now=self.now)
        self.tracker.connected(self.now)

    def event(self, kind: str, hostname: str, **fields: Any) -> Event:
        """An event of this host, stamped by its clock."""
        host = hostname.rpartition("@")[2]
        stamp = self.now + self.skew.get(host, 0.0)
        return Event(type=kind, hostname=hostname, timestamp=stamp, clock=next(self.clock), **fields)

    def send(self, kind: str, hostname: str = WORKER, **fields: object) -> None:
        """Let an event arrive at once."""
        if kind == "task-started":
            self.processed[hostname] = self.processed.get(hostname, 0) + 1
            self.running.add((hostname, fields.get("uuid")))
        elif kind in ENDS:
            self.running.discard((hostname, fields.get("uuid")))
        self.tracker.apply([self.event(kind, hostname, **fields)], self.now)

    def publish(self, uuid: str, name: str = "add", queue: str | None = "celery", **fields: object) -> None:
        """A producer sends a task."""
        self.send("task-sent", PRODUCER, uuid=uuid, name=name, queue=queue, **{"retries": 0, **fields})

    def receive(self, uuid: str, name: str = "add", hostname: str = WORKER, **fields: object) -> None:
        """A worker receives it."""
        self.send("task-received", hostname, uuid=uuid, name=name, **{"retries": 0, **fields})

    def start(self, uuid: str, hostname: str = WORKER) -> None:
        """A worker starts it."""
        self.send("task-started", hostname, uuid=uuid)

    def end(self, uuid: str, outcome: str = "succeeded", hostname: str = WORKER, **fields: object) -> None:
        """A worker says how it ended."""
        self.send(f"task-{outcome}", hostname, uuid=uuid, **fields)

    def run(self, uuid: str, name: str = "add", queue: str = "celery", outcome: str = "succeeded") -> None:
        """A whole life, from sent to its end."""
        self.publish(uuid, name, queue)
        self.receive(uuid, name)
        self.start(uuid)
        self.end(uuid, outcome)

    def heartbeat(self, hostname: str = WORKER, kind: str = "worker-heartbeat", **fields: object) -> None:
        """A heartbeat, with the counts of active runs and of runs begun that this worker would send."""
        active = sum(1 for host, _ in self.running if host == hostname)
        known = {"pid": 1, "freq": 2.0, "active": active, "processed": self.processed.get(hostname, 0)}
        self.send(kind, hostname, **{**known, **fields})

    def answer(self, hostname: str = WORKER, **fields: Any) -> None:
        """A worker's reply to a poll that was sent now."""
        self.tracker.asking()
        state = WorkerState(hostname=hostname, **fields)
        self.tracker.inspected(WorkersSnapshot(at=self.now, workers={hostname: state}))

    def pass_time(self, seconds: float, *, beating: tuple[str, ...] = ()) -> None:
        """Let time pass second by second, with heartbeats of the workers named every two."""
        for step in range(int(seconds)):
            self.now += 1.0
            for hostname in beating if step % 2 else ():
                self.heartbeat(hostname)
            self.tracker.tick(self.now)

    def beat(self, kind: str, *rows: ScheduleRow, hostname: str = BEAT, instance: str = "i1", **fields: Any) -> None:
        """An event of the hook in beat, which began when the exporter did unless ``fields`` say otherwise."""
        report = BeatReport(instance=instance, schedule=list(rows), **{"started_at": START + 0.1, **fields})
        self.send(f"beat-{kind}", hostname, beat=report)

    def series(self, name: str = "add", queue: str = "celery") -> TaskSeries:
        """The counters of a task series."""
        return self.tracker.task_series.get(name, queue)
