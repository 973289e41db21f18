"""Canned pages of exporters, as Prometheus would hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.engines import Canned

NOW = 1_700_000_000.0
"""The time of a canned exporter's last scrape; queries are asked three seconds later."""
ASKED = NOW + 3.0
FAMILIES = ("succeeded", "failed", "retried")


@dataclass(frozen=True)
class Exporter:
    """One exporter that was scraped every ``interval`` seconds over ``span`` seconds up to `NOW`.

    ``counts`` are finished tasks ``(seconds before NOW, task name, family)``; gauges are constant.
    """

    instance: str = "a:9808"
    cluster: str | None = None
    ended: float = 0.0
    """Seconds before NOW at which its last scrape was."""
    age: float = 5000.0
    span: float = 400.0
    interval: float = 10.0
    broker_up: float = 1.0
    polled: float | None = 1.0
    before: int = 100
    """The value of each counter before the counts, when the process is older than the pages."""
    known: Sequence[str] = ("shop.pay", "shop.mail")
    born: Mapping[str, float] = field(default_factory=dict)
    """Tasks whose series begin so many seconds before NOW, with all that they counted by then."""
    counts: Sequence[tuple[float, str, str]] = ()
    queues: Mapping[str, float] = field(default_factory=dict)
    workers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    busy: Mapping[str, float] = field(default_factory=dict)
    """Slots of each worker that always run a task."""
    runtime: float = 0.25

    def series(self) -> list[Canned]:
        """Everything that it exposed."""
        own = [
            self._gauge("celerymeter_start_time_seconds", NOW - self.age),
            self._gauge("celerymeter_build_info", 1.0, version="1"),
            self._gauge("celerymeter_broker_up", self.broker_up),
        ]
        if self.polled is not None:
            own.append(self._gauge("celerymeter_poll_success", self.polled, collector="queues"))
        own += [self._gauge("celery_queue_length", length, queue_name=name) for name, length in self.queues.items()]
        for hostname, gauges in self.workers.items():
            own += [self._gauge(f"celery_worker_{name}", value, hostname=hostname) for name, value in gauges.items()]
        own += [self._busy(hostname, slots) for hostname, slots in self.busy.items()]
        return own + [one for name in self.known for one in self._task(name)]

    def _times(self, since: float | None = None) -> list[float]:
        first = min(self.span, self.age if since is None else since)
        return [NOW - self.ended - n * self.interval for n in reversed(range(int(first / self.interval) + 1))]

    def _labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        own = {"instance": self.instance, "job": "celery"} | ({} if self.cluster is None else {"cluster": self.cluster})
        return own | dict(labels)

    def _gauge(self, name: str, value: float, **labels: str) -> Canned:
        return Canned(name, self._labels(labels), [(at, value) for at in self._times()])

    def _busy(self, hostname: str, slots: float) -> Canned:
        samples = [(at, slots * (at - NOW + self.age)) for at in self._times()]
        return Canned("celery_worker_busy_seconds_total", self._labels({"hostname": hostname}), samples)

    def _task(self, name: str) -> list[Canned]:
        before = self.before if self.age > self.span and name not in self.born else 0
        labels = self._labels({"name": name, "queue_name": "q"})
        times = self._times(self.born.get(name))

        def grown(*families: str) -> list[tuple[float, float]]:
            ends = [NOW - ago for ago, task, family in self.counts if task == name and family in families]
            return [(at, before + float(sum(end <= at for end in ends))) for at in times]

        zero = [(at, 0.0) for at in times]
        requeued = [(at, 7.0 * (at - NOW + 1000)) for at in times]
        return [
            *(Canned(f"celery_task_{family}_total", labels, grown(family)) for family in FAMILIES),
            Canned("celery_task_revoked_total", labels | {"reason": "revoked"}, zero),
            Canned("celery_task_rejected_total", labels | {"requeue": "false"}, zero),
            Canned("celery_task_rejected_total", labels | {"requeue": "true"}, requeued),
            Canned("celery_task_runtime_seconds_count", labels, grown("succeeded")),
            Canned("celery_task_runtime_seconds_sum", labels, [(at, n * self.runtime) for at, n in grown("succeeded")]),
            Canned("celery_task_in_progress", labels, zero),
        ]


def all_series(*exporters: Exporter) -> list[Canned]:
    """The series of several exporters."""
    return [series for exporter in exporters for series in exporter.series()]
