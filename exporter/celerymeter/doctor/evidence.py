"""What the collectors saw; values only, and nothing secret in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from celerymeter.model import QueueState

SHARED_OPTIONS = ("visibility_timeout", "priority_steps", "sep")
"""Transport options that change what is read of the queues, so that exporter and workers must have the same."""

FailureKind = Literal["refused", "unresolved", "password", "forbidden", "timeout", "tls", "missing", "http", "other"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something could not be reached; ``text`` is what the client said."""

    kind: FailureKind
    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """The events of one sender during the watch; counts by event type."""

    events: Mapping[str, int] = field(default_factory=dict)
    processed: tuple[int, ...] = ()
    """The ``processed`` of its heartbeats, in order."""
    active: int = 0
    """The most tasks at once that a heartbeat told of."""
    clock_offset: float | None = None
    """Our clock minus the sender's in seconds, at the quickest event."""

    @property
    def task_events(self) -> int:
        """Events about tasks."""
        return sum(count for event, count in self.events.items() if event.startswith("task-"))

    @property
    def is_worker(self) -> bool:
        """Producers send nothing but task-sent and events of their own."""
        return any(event.startswith("worker-") for event in self.events)

    @property
    def worked(self) -> bool:
        """Whether it began or ran a task during the watch."""
        return self.active > 0 or (len(self.processed) > 1 and self.processed[-1] > self.processed[0])


@dataclass(frozen=True, slots=True)
class Watch:
    """The event stream for some seconds; ``failure`` when it could not be subscribed."""

    seconds: float = 0.0
    senders: Mapping[str, Heard] = field(default_factory=dict)
    unsent: Mapping[str, int] = field(default_factory=dict)
    """By task name: tasks that were surely sent during the watch (queues were empty before), without `task-sent`."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Messages that could not be used, by reason."""
    failure: str | None = None

    @property
    def workers(self) -> Mapping[str, Heard]:
        """The senders that are workers."""
        return {name: heard for name, heard in self.senders.items() if heard.is_worker}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one worker answered to `inspect`; ``None`` where it did not say."""

    pool: str | None = None
    queues: frozenset[str] | None = None
    sends_task_events: bool | None = None
    """Its configuration; ``-E`` on the command line does not show there."""
    event_exchange: str = "celeryev"
    time_zone: str = "UTC"
    """Its ``timezone``, with ``enable_utc`` off the words ``local time`` before it."""
    transport_options: Mapping[str, object] = field(default_factory=dict)
    """Those of `SHARED_OPTIONS` that it was given."""


@dataclass(frozen=True, slots=True)
class BrokerEvidence:
    """The broker, what was said on it, and what waits on it."""

    url: str
    failure: Failure | None = None
    watch: Watch = field(default_factory=Watch)
    answers: Mapping[str, Answer] = field(default_factory=dict)
    queues: tuple[QueueState, ...] | None = None
    """``None`` when they could not be looked at."""
    event_exchange: str = "celeryev"
    transport_options: Mapping[str, object] = field(default_factory=dict)
    """Ours, as given."""
    elsewhere: tuple[str, ...] = ()
    """Where else on this server Celery has queues; looked for only when nobody is here."""
    only_results: bool = False
    """Whether this database holds task results and no queues."""

    @property
    def workers(self) -> frozenset[str]:
        """Every worker that gave a sign of life."""
        return frozenset(self.answers) | frozenset(self.watch.workers)


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a page or of a query."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class ExporterEvidence:
    """The exporter's page, by sample name."""

    url: str
    failure: Failure | None = None
    page: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    clock_offset: float | None = None
    """Our clock minus the exporter's in seconds, to the second."""
    at: float = 0.0
    """When the page was taken, by our clock."""

    @property
    def started(self) -> float | None:
        """When the process started, by its own clock: what tells exporters apart."""
        return self.value("celerymeter_start_time_seconds")

    def value(self, name: str) -> float | None:
        """The value of a sample without labels."""
        samples = self.page.get(name, ())
        return samples[0].value if samples else None

    def by(self, label: str, name: str) -> dict[str, float]:
        """The sums of a family by one label."""
        sums: dict[str, float] = {}
        for sample in self.page.get(name, ()):
            value = sample.labels.get(label, "")
            sums[value] = sums.get(value, 0.0) + sample.value
        return sums


@dataclass(frozen=True, slots=True)
class Target:
    """A target of Prometheus; durations in seconds, 0 where it does not tell."""

    url: str
    healthy: bool
    error: str
    job: str = ""
    instance: str = ""
    interval: float = 0.0
    timeout: float = 0.0
    took: float = 0.0


@dataclass(frozen=True, slots=True)
class Scraped:
    """An exporter of ours as Prometheus has it; ``started`` and ``last_event`` are UTC seconds."""

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
    """Whether the thresholds are there as series."""


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """An Alertmanager that Prometheus has found."""

    url: str
    failure: Failure | None = None
    """Why we cannot reach it from here."""
    errors: int = 0
    """Notifications that Prometheus could not deliver to it since its start."""


@dataclass(frozen=True, slots=True)
class PrometheusEvidence:
    """What Prometheus has of exporters; ``None`` for what an engine does not tell."""

    url: str
    failure: Failure | None = None
    exporters: tuple[Scraped, ...] = ()
    targets: tuple[Target, ...] | None = None
    others: frozenset[str] = frozenset()
    """Instances with Celery's series that are no exporters of ours."""
    renamed: frozenset[str] = frozenset()
    """Labels of ours that came in as ``exported_…``."""
    unlabelled: frozenset[str] = frozenset()
    """Labels of ours that are missing."""
    clock_offset: float | None = None
    """Our clock minus Prometheus' in seconds."""
    rules: RulesEvidence | None = None
    alertmanagers: tuple[Alertmanager, ...] | None = None


@dataclass(frozen=True, slots=True)
class ControlEvidence:
    """What the control API says of itself."""

    url: str
    failure: Failure | None = None
    status: str | None = None
    failing: tuple[str, ...] = ()
    """Its checks that are not well."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything; what was not asked for is ``None``."""

    broker: BrokerEvidence
    exporter: ExporterEvidence | None = None
    prometheus: PrometheusEvidence | None = None
    control: ControlEvidence | None = None
