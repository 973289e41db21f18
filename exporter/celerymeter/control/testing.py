"""Settings, services and tokens for tests of the control API."""

from __future__ import annotations

import time

from celerymeter.control.access import Role
from celerymeter.control.auth import Authenticator
from celerymeter.control.health import Component, SystemState
from celerymeter.control.keys import Keyring, mint
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.services import Services
from celerymeter.control.settings import ControlSettings, JwtSettings
from celerymeter.settings import BrokerSettings

SECRET = b"a secret that only the tests know, of enough bytes"


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


def control_services(settings: ControlSettings) -> Services:
    """Services of fakes, with real authentication; vary them with `dataclasses.replace`."""
    metrics = ControlMetrics()
    auth = Authenticator(Keyring(settings.jwt), webhook_token=settings.webhook_token, metrics=metrics)
    return Services(auth=auth, system=FakeSystem(), metrics=metrics)


def token(role: Role = Role.VIEWER, *, ttl: float = 600.0, subject: str = "someone") -> str:
    """A token that `control_settings` accept."""
    return mint(secret=SECRET, subject=subject, role=role, now=time.time(), ttl=ttl, extra={})


def bearer(role: Role = Role.VIEWER) -> dict[str, str]:
    """The header that carries such a token."""
    return {"Authorization": f"Bearer {token(role)}"}
