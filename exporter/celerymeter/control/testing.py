"""Settings, services and tokens for tests of the control API."""

from __future__ import annotations

import time
from pathlib import Path

from celerymeter.control.access import Role
from celerymeter.control.audit.keeper import AuditKeeper
from celerymeter.control.audit.trail import AuditTrail
from celerymeter.control.auth import Authenticator
from celerymeter.control.health import Component, SystemState
from celerymeter.control.instances import Instance
from celerymeter.control.keys import Keyring, mint
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.reporting import report_desk
from celerymeter.control.revocation.compose import revocation
from celerymeter.control.services import Services
from celerymeter.control.settings import ControlSettings, JwtSettings
from celerymeter.control.store import Store
from celerymeter.control.watching import prometheus_client, watching
from celerymeter.settings import BrokerSettings

SECRET = b"a secret that only the tests know, of enough bytes"
AUDIT_KEY = b"the key of the tests' audit trails"


def control_settings() -> ControlSettings:
    """Settings of a control API that reaches nothing; vary them with `dataclasses.replace`."""
    return ControlSettings(
        broker=BrokerSettings(url="redis://someone:hidden@127.0.0.1:1/0"),
        prometheus_url="http://127.0.0.1:1",
        jwt=JwtSettings(secrets=(SECRET,)),
    )


class FakeSystem:
    """A `SystemSource` whose state a test sets."""

    def __init__(self, *components: Component) -> None:
        self.current = SystemState(at=1_700_000_000.0, components=components or (Component("broker", "ok"),))

    def state(self) -> SystemState:
        """What the test set."""
        return self.current


def control_services(settings: ControlSettings, state_dir: Path) -> Services:
    """Real authentication, state and audit trail in ``state_dir``; the rest are fakes."""
    metrics = ControlMetrics()
    store = Store(state_dir)
    trail = AuditTrail(store, instance=Instance(state_dir), key=AUDIT_KEY)
    keeper = AuditKeeper(trail, retention=settings.audit_retention)
    auth = Authenticator(
        Keyring(settings.jwt),
        webhook_token=settings.webhook_token,
        failures_per_minute=settings.limits.auth_failures_per_minute,
        metrics=metrics,
        watcher=keeper,
    )
    client = prometheus_client(settings, metrics, timeout=1.0)
    watched = watching(settings, store=store, auth=auth, metrics=metrics, client=client)
    return Services(
        auth=auth,
        system=FakeSystem(),
        metrics=metrics,
        store=store,
        audit=trail,
        keeper=keeper,
        watching=watched,
        revocation=revocation(settings, store=store, audit=trail, hub=watched.monitoring.hub, metrics=metrics),
        reports=report_desk(settings, store=store, metrics=metrics),
    )


def token(role: Role = Role.VIEWER, *, ttl: float = 600.0, subject: str = "someone") -> str:
    """A token that `control_settings` accept."""
    return mint(secret=SECRET, subject=subject, role=role, now=time.time(), ttl=ttl, extra={})


def bearer(role: Role = Role.VIEWER) -> dict[str, str]:
    """The header that carries such a token."""
    return {"Authorization": f"Bearer {token(role)}"}
