"""The composition root: the concrete parts of a control API that serves."""

from __future__ import annotations

import socket
from pathlib import Path

from prometheus_client import generate_latest

from celerymeter.control.audit.keeper import AuditKeeper
from celerymeter.control.audit.key import audit_key
from celerymeter.control.audit.record import open_trail
from celerymeter.control.audit.trail import AuditTrail
from celerymeter.control.auth import Authenticator
from celerymeter.control.instances import Instance
from celerymeter.control.keys import Keyring
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.reporting import report_desk
from celerymeter.control.revocation.compose import revocation
from celerymeter.control.revocation.lookups import open_states
from celerymeter.control.services import Services
from celerymeter.control.settings import ControlSettings
from celerymeter.control.store import Store
from celerymeter.control.tap import EventTap
from celerymeter.control.watching import TIMEOUT, prometheus_client, watching
from celerymeter.httpd import MetricsServer
from celerymeter.prometheus import PrometheusSettings, Scope


def check(settings: ControlSettings, state_dir: Path) -> None:
    """Find out before anything starts whether the keys and the state directory are usable; raises `SettingsError`.

    Nothing stays open: what SQLite and locks hold must not cross a fork.
    """
    Keyring(settings.jwt)
    EventTap(settings.broker)
    open_states(settings.result_backend_url, settings.broker)
    PrometheusSettings(settings.prometheus_url, headers=settings.prometheus_headers)
    Scope(settings.cluster, settings.selector)
    with open_trail(state_dir, settings.audit_key):
        pass


def build(settings: ControlSettings, state_dir: Path, metrics_socket: socket.socket) -> Services:
    """All parts, in the process that will serve. Starts nothing.

    ``background`` is stopped from its end, so what keeps sockets open stands last and what keeps records first.
    """
    metrics = ControlMetrics()
    store = Store(state_dir)
    trail = AuditTrail(store, instance=Instance(state_dir), key=audit_key(store, settings.audit_key))
    keeper = AuditKeeper(trail, retention=settings.audit_retention)
    auth = Authenticator(
        Keyring(settings.jwt),
        webhook_token=settings.webhook_token,
        failures_per_minute=settings.limits.auth_failures_per_minute,
        metrics=metrics,
        watcher=keeper,
    )
    client = prometheus_client(settings, metrics, timeout=TIMEOUT)
    watched = watching(settings, store=store, auth=auth, metrics=metrics, client=client)
    desk = report_desk(settings, store=store, metrics=metrics)
    revoking = revocation(settings, store=store, audit=trail, hub=watched.monitoring.hub, metrics=metrics)
    tap = EventTap(settings.broker, watched.monitoring.switch, *revoking.sinks)
    own_metrics = MetricsServer(
        metrics_socket,
        page=lambda: generate_latest(metrics.registry),
        healthy=lambda: None,
        ready=lambda: None,
    )
    return Services(
        auth=auth,
        system=watched.sampler,
        metrics=metrics,
        store=store,
        audit=trail,
        keeper=keeper,
        watching=watched,
        revocation=revoking,
        reports=desk,
        background=(keeper, own_metrics, desk, tap, *revoking.background, *watched.background),
    )
