"""Values that the collectors read, without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from celerymeter import connection_errors
from celerymeter.model import QueueState
from celerymeter.totals_message import TOTALS
from celerymeter.worker_configuration import WorkerConfiguration

FailureKind = Literal["refused", "unresolved", "timeout", "tls", "missing", "http", "other"] | connection_errors.Kind


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why something could not be reached; ``text`` comes from the client."""

    kind: FailureKind
    text: str
    fix: str = ""
    """What to do, where that is known whatever was asked."""


@dataclass(frozen=True, slots=True)
class TotalsSeen:
    """The head of an aggregating worker's last totals; bounds are of histograms, in seconds."""

    runtime_bounds: tuple[float, ...] = ()
    wait_bounds: tuple[float, ...] = ()
    failed: bool = False
    """True if it has given up counting."""


@dataclass(frozen=True, slots=True)
class SenderEvents:
    """The events of one sender during the watch; counts by event type."""

    events: Mapping[str, int] = field(default_factory=dict)
    processed: tuple[int, ...] = ()
    """The ``processed`` of its heartbeats, in order: the tasks that it has started."""
    active: tuple[int, ...] = ()
    """The ``active`` of its heartbeats, in order: the tasks that it runs."""
    clock_offset: float | None = None
    """Our clock minus the sender's in seconds, for the event that arrived fastest."""
    totals: TotalsSeen | None = None
    """Of a worker that aggregates."""

    @property
    def task_events(self) -> int:
        """Number of events about tasks, totals included."""
        return sum(count for event, count in self.events.items() if event.startswith("task-") or event == TOTALS)

    @property
    def is_worker(self) -> bool:
        """False for producers, which send only task-sent and custom events."""
        return any(event.startswith("worker-") for event in self.events)

    @property
    def is_beat(self) -> bool:
        """True for beats with the hook."""
        return "beat-heartbeat" in self.events and "beat-offline" not in self.events

    @property
    def changed_tasks(self) -> bool:
        """True when a task started or ended between two heartbeats, which must have caused a task event.

        A task that runs through the whole watch causes none.
        """
        started = len(self.processed) > 1 and self.processed[-1] > self.processed[0]
        return started or any(after < before for before, after in pairwise(self.active))


@dataclass(frozen=True, slots=True)
class EventWatch:
    """The event stream for some seconds; ``failure`` when it could not be subscribed."""

    seconds: float = 0.0
    senders: Mapping[str, SenderEvents] = field(default_factory=dict)
    unsent: Mapping[str, int] = field(default_factory=dict)
    """Tasks by name that were sent during the watch, because queues were empty before, without a `task-sent`."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Messages that are not events, by reason."""
    failure: str | None = None

    @property
    def workers(self) -> Mapping[str, SenderEvents]:
        """The senders that are workers."""
        return {name: sender for name, sender in self.senders.items() if sender.is_worker}


@dataclass(frozen=True, slots=True)
class WorkerReplies:
    """The replies of one worker to `inspect`; ``None`` where it did not say."""

    pool: str | None = None
    queues: frozenset[str] | None = None
    sends_task_events: bool | None = None
    """From its configuration, in which ``-E`` on the command line does not show."""
    event_exchange: str = "celeryev"
    time_zone: str = "UTC"
    """Its ``timezone``, with ``enable_utc`` off after the words ``local time``."""
    transport_options: Mapping[str, object] = field(default_factory=dict)
    """Those that change how queues are read."""
    visibility_timeout: float | None = None
    """In seconds, on Redis alone."""
    configuration: WorkerConfiguration | None = None
    """``None`` when it did not say."""
    registered: frozenset[str] | None = None
    """The names of its tasks."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A Redis list or RabbitMQ queue that a client left behind; ``size`` in bytes where the broker tells it."""

    name: str
    length: int
    size: int | None = None


@dataclass(frozen=True, slots=True)
class BrokerEvidence:
    """The broker, its workers and its queues."""

    url: str
    absent: bool = False
    """True for ``--broker-url none``: workers push their totals."""
    failure: Failure | None = None
    watch: EventWatch = field(default_factory=EventWatch)
    replies: Mapping[str, WorkerReplies] = field(default_factory=dict)
    """By worker."""
    other_replies: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Content types of replies that are not JSON, with the workers that sent them as far as they are known."""
    queues: tuple[QueueState, ...] | None = None
    """``None`` when they could not be read."""
    event_exchange: str = "celeryev"
    transport_options: Mapping[str, object] = field(default_factory=dict)
    """The options that the doctor was given."""
    elsewhere: tuple[str, ...] = ()
    """Other places on this server where Celery has queues; searched only when there is no worker."""
    only_results: bool = False
    """True when this database holds task results and no queues."""
    queues_incomplete: str | None = None
    """Why not all queues are known."""
    orphaned_lists: tuple[Orphan, ...] = ()
    """On Redis."""
    orphaned_queues: tuple[Orphan, ...] = ()
    """On RabbitMQ, with the management API alone."""
    beats: frozenset[str] = frozenset()
    """Beats that answered a ping or sent an event."""

    @property
    def workers(self) -> frozenset[str]:
        """Every worker that sent a heartbeat or a reply."""
        return frozenset(self.replies) | frozenset(self.watch.workers)

    @property
    def aggregating(self) -> Mapping[str, TotalsSeen]:
        """The workers that send totals."""
        return {name: sender.totals for name, sender in self.watch.workers.items() if sender.totals is not None}


@dataclass(frozen=True, slots=True)
class PageSample:
    """One sample of a metrics page."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class ExporterEvidence:
    """The metrics page of the exporter, by sample name."""

    url: str
    failure: Failure | None = None
    page: Mapping[str, tuple[PageSample, ...]] = field(default_factory=dict)
    clock_offset: float | None = None
    """Our clock minus the exporter's in seconds, to the second."""
    at: float = 0.0
    """Time at which the page was read, by our clock."""

    @property
    def started(self) -> float | None:
        """Start time of the process by its own clock; no two exporters have the same."""
        return self.value("celerymeter_start_time_seconds")

    def value(self, name: str) -> float | None:
        """Return the value of a sample without labels."""
        samples = self.page.get(name, ())
        return samples[0].value if samples else None

    def by(self, label: str, name: str) -> dict[str, float]:
        """Return the sums of a family by one label."""
        sums: dict[str, float] = {}
        for sample in self.page.get(name, ()):
            value = sample.labels.get(label, "")
            sums[value] = sums.get(value, 0.0) + sample.value
        return sums

    def nonzero(self, label: str, name: str) -> dict[str, float]:
        """Return the sums of a family by one label, without those that are 0."""
        return {value: total for value, total in self.by(label, name).items() if total}


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """A scrape target of Prometheus; durations in seconds, 0 where they are not known."""

    url: str
    healthy: bool
    error: str
    job: str = ""
    instance: str = ""
    interval: float = 0.0
    timeout: float = 0.0
    took: float = 0.0
    scraped: bool = True
    """False before the first scrape."""


@dataclass(frozen=True, slots=True)
class ScrapedExporter:
    """A celerymeter exporter as Prometheus sees it; ``started`` and ``last_event`` are UTC seconds."""

    job: str
    instance: str
    cluster: str = ""
    started: float | None = None
    broker_up: bool = True
    last_event: float | None = None
    workers: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    """The names of its series."""

    def __str__(self) -> str:
        return f"{self.instance} (job {self.job})"


@dataclass(frozen=True, slots=True)
class RulesEvidence:
    """The rules that Prometheus has loaded: names of alerts and recorded series."""

    loaded: frozenset[str] = frozenset()
    failing: Mapping[str, str] = field(default_factory=dict)
    """The last error of each rule that fails."""
    limits: bool = True
    """True when the thresholds exist as series."""


@dataclass(frozen=True, slots=True)
class AlertmanagerEvidence:
    """An Alertmanager that Prometheus uses."""

    url: str
    failure: Failure | None = None
    """The reason why it cannot be reached from here."""
    errors: int = 0
    """Notifications that Prometheus could not deliver to it since Prometheus started."""


@dataclass(frozen=True, slots=True)
class PrometheusEvidence:
    """Prometheus' view of exporters; ``None`` where this server has no such API."""

    url: str
    failure: Failure | None = None
    exporters: tuple[ScrapedExporter, ...] = ()
    targets: tuple[ScrapeTarget, ...] | None = None
    others: frozenset[str] = frozenset()
    """Instances with Celery series that are not celerymeter exporters."""
    renamed: frozenset[str] = frozenset()
    """Labels of the exporter that arrived as ``exported_…``."""
    unlabelled: frozenset[str] = frozenset()
    """Labels of the exporter that are missing."""
    clock_offset: float | None = None
    """Our clock minus Prometheus' in seconds."""
    rules: RulesEvidence | None = None
    alertmanagers: tuple[AlertmanagerEvidence, ...] | None = None


@dataclass(frozen=True, slots=True)
class ControlEvidence:
    """The health of the control API."""

    url: str
    failure: Failure | None = None
    status: str | None = None
    failing: tuple[str, ...] = ()
    """Its checks that are not healthy."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything; places that were not named are ``None``."""

    broker: BrokerEvidence
    exporter: ExporterEvidence | None = None
    prometheus: PrometheusEvidence | None = None
    control: ControlEvidence | None = None
