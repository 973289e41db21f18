"""Composition of all that watches: Prometheus, events, the feed, alerts."""

from __future__ import annotations

from dataclasses import dataclass

from celerymeter.control.auth import Authenticator
from celerymeter.control.background import Background
from celerymeter.control.feed.hub import Hub
from celerymeter.control.feed.views import Feed
from celerymeter.control.live.alertmanager import AlertmanagerProbe
from celerymeter.control.live.lookout import Lookout, Queries
from celerymeter.control.live.models import DashboardReply, show_dashboard
from celerymeter.control.live.sampler import Sampler
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.monitoring import Monitoring
from celerymeter.control.notifications.kept import KeptAlerts
from celerymeter.control.notifications.tail import AlertTail
from celerymeter.control.settings import ControlSettings
from celerymeter.control.store import Store
from celerymeter.control.switching.remote import CeleryRemote, Remote
from celerymeter.control.switching.switch import Switch
from celerymeter.control.switching.wishes import Wishes
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope

TIMEOUT = 4.0
"""Seconds for a query of the live figures: clients of the API give up after 5."""
DASHBOARDS = ("overview", "tasks", "queues", "workers", "exporter")


@dataclass(frozen=True, slots=True)
class Watching:
    """The parts, connected with each other and not started."""

    monitoring: Monitoring
    sampler: Sampler
    feed: Feed
    alerts: KeptAlerts
    tail: AlertTail

    @property
    def background(self) -> tuple[Background, ...]:
        """What runs, in the order in which it is started; the hub, which holds sockets, is stopped first."""
        return (self.monitoring.switch, self.sampler, self.tail, self.monitoring.hub)


class _Counted:
    """Every query in the program's own metrics."""

    def __init__(self, metrics: ControlMetrics) -> None:
        self._metrics = metrics

    def answered(self, seconds: float) -> None:
        """An answer came."""
        self._metrics.promql_latency.observe(seconds)

    def failed(self, reason: str) -> None:
        """None came."""
        self._metrics.promql_failures.labels(reason).inc()


def prometheus_client(settings: ControlSettings, metrics: ControlMetrics, *, timeout: float) -> PrometheusClient:
    """A client as the settings want it, whose queries are counted."""
    chosen = PrometheusSettings(settings.prometheus_url, headers=settings.prometheus_headers, timeout=timeout)
    return PrometheusClient(chosen, observer=_Counted(metrics))


def watching(
    settings: ControlSettings,
    *,
    store: Store,
    auth: Authenticator,
    metrics: ControlMetrics,
    client: Queries,
    remote: Remote | None = None,
) -> Watching:
    """All parts. Starts no thread and opens no connection."""
    lookout = Lookout(client, Scope(settings.cluster, settings.selector))
    hub = Hub(max_clients=settings.feed_max_clients, clients=metrics.feed_clients, dropped=metrics.feed_dropped)
    wishes = Wishes(store)
    switch = Switch(remote or CeleryRemote(settings.broker), wishes)
    links = grafana_links(settings.grafana_url)
    kept = KeptAlerts(store)

    def board() -> DashboardReply:
        return show_dashboard(lookout.dashboard(), links=links)

    def feed_on() -> bool:
        return wishes.get().feed_on

    sampler = Sampler(
        lookout.look,
        board,
        hub,
        interval=settings.feed_interval,
        feed_on=feed_on,
        probes=() if settings.alertmanager_url is None else (AlertmanagerProbe(settings.alertmanager_url),),
    )
    return Watching(
        monitoring=Monitoring(lookout, board, switch, wishes, hub, settings.feed_interval),
        sampler=sampler,
        feed=Feed(hub, auth, board, feed_on, settings),
        alerts=kept,
        tail=AlertTail(kept, hub, language=settings.lang),
    )


def grafana_links(url: str | None) -> dict[str, str]:
    """The shipped dashboards by name; empty when no Grafana is configured."""
    return {name: f"{url.rstrip('/')}/d/celerymeter-{name}" for name in DASHBOARDS} if url else {}
