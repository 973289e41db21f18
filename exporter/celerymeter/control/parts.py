"""The composition root: every part of a control API, built and connected in one place.

The server builds them once, in the process that serves. Tests build them as well, with fakes in place of what reaches
Prometheus or the broker. Views never take the whole container: `celerymeter.control.app` hands each blueprint what it
needs.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from prometheus_client import generate_latest

from celerymeter.broker import AMQP_TRANSPORTS, REDIS_TRANSPORTS
from celerymeter.control.alerts import AlertStore
from celerymeter.control.audit.maintenance import AuditMaintenance
from celerymeter.control.audit.trail import AuditTrail, audit_key, open_trail
from celerymeter.control.auth import Authenticator
from celerymeter.control.cluster.snapshot import ClusterReader, Queries, alertmanager_component
from celerymeter.control.desired_state import DesiredStateStore
from celerymeter.control.event_listener import EventListener
from celerymeter.control.evidence.amqp_queues import AmqpQueues
from celerymeter.control.evidence.collector import EvidenceCollector
from celerymeter.control.evidence.events import EventCache
from celerymeter.control.evidence.look import TaskLooker
from celerymeter.control.evidence.redis_queues import RedisQueues
from celerymeter.control.evidence.result_backend import open_result_backend
from celerymeter.control.evidence.sources import Sources
from celerymeter.control.evidence.workers import CONNECTIONS
from celerymeter.control.feed.hub import Hub
from celerymeter.control.feed.sampler import Sampler
from celerymeter.control.feed.views import Feed
from celerymeter.control.live_workers import LiveWorkers
from celerymeter.control.lookup.service import LookupService
from celerymeter.control.lookup.usual import UsualTimes
from celerymeter.control.metrics import ControlMetrics, QueryMetrics
from celerymeter.control.monitoring import Monitoring
from celerymeter.control.reports import ReportRunner, ReportStore
from celerymeter.control.revocation.batches import BatchStore, Recorder
from celerymeter.control.revocation.followup import Followup
from celerymeter.control.revocation.service import RevocationService
from celerymeter.control.revocation.workers import Workers
from celerymeter.control.settings import ControlSettings
from celerymeter.control.store import Store
from celerymeter.control.system import SnapshotSource
from celerymeter.control.task_events import TaskEventSwitch
from celerymeter.control.tasks import IdempotencyKeys
from celerymeter.control.tokens import Keyring
from celerymeter.control.worker_probe import WorkerProbe
from celerymeter.httpd import MetricsServer, WebConfig
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope
from celerymeter.remote_control import RemoteControl
from celerymeter.reports.service import ReportService

LIVE_TIMEOUT: Final = 4.0
"""Seconds for a query of the live metrics: clients of the API give up after 5."""
USUAL_TIMEOUT: Final = 0.5
"""Seconds for the usual run time in a look-up, which is right without it."""
REPORT_TIMEOUT: Final = 60.0
"""Seconds for a query of a report: no connection is held while a long one is made."""
LIVE_MEMORY: Final = 48 * 2**20
USUAL_MEMORY: Final = 16 * 2**20
REPORT_MEMORY: Final = 96 * 2**20
"""Bytes of memory that Prometheus' answers may take at once, so that the program needs less than 512 MB whatever
Prometheus sends. Two reports at once on 97,500 series needed 62 MiB."""
DASHBOARDS: Final = ("overview", "tasks", "queues", "workers", "exporter")


class Background(Protocol):
    """A thread or several. Started in order after the fork, stopped in reverse; `stop` returns within a second or two
    and is safe to call without `start`.
    """

    def start(self) -> None:
        """Begin; returns at once."""

    def stop(self) -> None:
        """End; also shuts down sockets that would keep the server waiting."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts, connected with each other and not started."""

    metrics: ControlMetrics
    store: Store
    audit: AuditTrail
    maintenance: AuditMaintenance
    auth: Authenticator
    system: SnapshotSource
    sampler: Sampler
    monitoring: Monitoring
    feed: Feed
    alerts: AlertStore
    revocations: RevocationService
    idempotency: IdempotencyKeys
    followup: Followup
    lookups: LookupService
    reports: ReportRunner
    events: EventListener
    background: tuple[Background, ...]
    """Stopped from its end, so what keeps sockets open stands last and what keeps records first."""


def check(settings: ControlSettings, state_dir: Path) -> None:
    """Raise `SettingsError` before anything starts when the keys or the state directory cannot be used.

    Nothing stays open: what SQLite and locks hold must not cross a fork.
    """
    Keyring(settings.jwt)
    EventListener(settings.broker)
    open_result_backend(settings.result_backend_url, settings.broker)
    PrometheusSettings(settings.prometheus_url, headers=settings.prometheus_headers)
    Scope(settings.cluster, settings.selector)
    with open_trail(state_dir, settings.audit_key):
        pass


def build(
    settings: ControlSettings,
    state_dir: Path,
    *,
    metrics_socket: socket.socket | None = None,
    prometheus: Queries | None = None,
    remote: RemoteControl | None = None,
    workers: Workers | None = None,
) -> Parts:
    """Return all parts. Starts no thread and opens no connection; raises `SettingsError`.

    ``metrics_socket`` is where the API's own metrics are served. The other arguments replace what reaches Prometheus,
    switches task events and revokes.
    """
    metrics = ControlMetrics()
    store = Store(state_dir, unreadable=lambda table, number: metrics.unreadable.labels(table).inc(number))
    audit = AuditTrail(store, key=audit_key(store, settings.audit_key))
    maintenance = AuditMaintenance(audit, retention=settings.audit_retention)
    auth = Authenticator(settings, metrics=metrics, maintenance=maintenance)
    hub = Hub(max_clients=settings.feed_max_clients, clients=metrics.feed_clients, dropped=metrics.feed_dropped)
    scope = Scope(settings.cluster, settings.selector)
    client = prometheus or _prometheus(settings, metrics, timeout=LIVE_TIMEOUT, memory=LIVE_MEMORY)
    reader = ClusterReader(client, scope, links=grafana_links(settings.grafana_url))
    live_workers, desired = LiveWorkers(evicted=metrics.evicted.labels("workers").inc), DesiredStateStore(store)
    switch = TaskEventSwitch(remote or RemoteControl(settings.broker), desired, live_workers)
    alertmanager = settings.alertmanager_url

    def feed_on() -> bool:
        return desired.get().feed_on

    probes = () if alertmanager is None else (partial(alertmanager_component, alertmanager),)
    sampler = Sampler(reader, hub, interval=settings.feed_interval, feed_on=feed_on, probes=probes)
    recorder = Recorder(BatchStore(store), audit, hub=hub, metrics=metrics)
    workers = workers or Workers([RemoteControl(settings.broker) for _ in range(CONNECTIONS)])
    workers.aggregating, workers.unread = live_workers.aggregating, metrics.evicted.labels("replies").inc
    sources = _sources(settings, recorder, live_workers, workers=workers)
    followup = Followup(workers, sources, recorder=recorder, hold=settings.revoke_hold)
    revocations = RevocationService(EvidenceCollector(sources), workers, followup, recorder)
    looker = TaskLooker(sources)
    usual = UsualTimes(
        client if prometheus else _prometheus(settings, metrics, timeout=USUAL_TIMEOUT, memory=USUAL_MEMORY), scope
    )
    report_client = _prometheus(settings, metrics, timeout=REPORT_TIMEOUT, memory=REPORT_MEMORY)
    reports = ReportRunner(
        ReportService(report_client, scope).report, ReportStore(store, evicted=metrics.evicted.labels("reports").inc)
    )
    # The order matters: the switch and the follow-up ask the registry of workers.
    events = EventListener(settings.broker, live_workers, switch, followup)
    probe = WorkerProbe(RemoteControl(settings.broker), live_workers)
    served = () if metrics_socket is None else (_metrics_server(metrics, metrics_socket, settings),)
    return Parts(
        metrics=metrics,
        store=store,
        audit=audit,
        maintenance=maintenance,
        auth=auth,
        system=sampler,
        sampler=sampler,
        monitoring=Monitoring(reader, switch, hub, settings.feed_interval),
        feed=Feed(hub, auth, reader, feed_on, settings),
        alerts=AlertStore(store, language=settings.lang, shortened=metrics.evicted.labels("alert_texts").inc),
        revocations=revocations,
        idempotency=IdempotencyKeys(store),
        followup=followup,
        lookups=LookupService(looker.look, usual.of),
        reports=reports,
        events=events,
        background=(maintenance, *served, reports, followup, events, switch, probe, sampler, hub),
    )


def _sources(settings: ControlSettings, recorder: Recorder, live_workers: LiveWorkers, *, workers: Workers) -> Sources:
    broker: RedisQueues | AmqpQueues | None = None
    if settings.broker.transport in REDIS_TRANSPORTS:
        broker = RedisQueues(settings.broker)
    elif settings.broker.transport in AMQP_TRANSPORTS:
        broker = AmqpQueues(settings.broker)
    return Sources(
        workers,
        EventCache(evicted=recorder.metrics.evicted.labels("task_events").inc),
        live_workers,
        result_backend=open_result_backend(
            settings.result_backend_url, settings.broker, cut=recorder.metrics.evicted.labels("results").inc
        ),
        broker=broker,
        previously_terminated=recorder.store.previously_terminated,
        control_exchange=str(settings.broker.celery_settings.get("control_exchange", "celery")),
    )


def _metrics_server(metrics: ControlMetrics, sock: socket.socket, settings: ControlSettings) -> MetricsServer:
    def page() -> list[bytes]:
        return [generate_latest(metrics.registry)]

    hosts = WebConfig(hosts=settings.allowed_hosts)
    return MetricsServer(sock, page=page, healthy=lambda: None, ready=lambda: None, web_config=hosts)


def _prometheus(settings: ControlSettings, metrics: ControlMetrics, *, timeout: float, memory: int) -> PrometheusClient:
    chosen = PrometheusSettings(
        settings.prometheus_url, headers=settings.prometheus_headers, timeout=timeout, max_memory=memory
    )
    return PrometheusClient(chosen, observer=QueryMetrics(metrics))


def grafana_links(url: str | None) -> dict[str, str]:
    """Return the URLs of the shipped dashboards by name; none when no Grafana is configured."""
    return {name: f"{url.rstrip('/')}/d/celerymeter-{name}" for name in DASHBOARDS} if url else {}
