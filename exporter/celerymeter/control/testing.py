"""Settings, parts and tokens for tests of the control API."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from celerymeter.control.cluster.models import ClusterSnapshot, Component
from celerymeter.control.parts import Parts, build
from celerymeter.control.settings import ControlSettings, JwtSettings
from celerymeter.control.tokens import Role, mint
from celerymeter.settings import BrokerSettings

SECRET = b"a secret that only the tests know, of enough bytes"


def control_settings() -> ControlSettings:
    """Return settings of a control API that reaches nothing; vary them with `dataclasses.replace`."""
    return ControlSettings(
        broker=BrokerSettings(url="redis://someone:hidden@127.0.0.1:1/0"),
        prometheus_url="http://127.0.0.1:1",
        jwt=JwtSettings(secrets=(SECRET,)),
    )


class FakeSystem:
    """A `SnapshotSource` whose snapshot a test sets."""

    def __init__(self, *components: Component) -> None:
        self.current = ClusterSnapshot(at=1_700_000_000.0, components=components or (Component("broker", "ok"),))

    def last_snapshot(self) -> ClusterSnapshot:
        """Return what the test set."""
        return self.current


def control_parts(settings: ControlSettings, state_dir: Path) -> Parts:
    """Return the real parts with their state in ``state_dir``, but for the state of the system, which a test sets."""
    return replace(build(settings, state_dir), system=FakeSystem())


def token(role: Role = Role.VIEWER, *, ttl: float = 600.0, subject: str = "someone") -> str:
    """Return a token that `control_settings` accept."""
    return mint(secret=SECRET, subject=subject, role=role, now=time.time(), ttl=ttl, extra={})


def bearer(role: Role = Role.VIEWER) -> dict[str, str]:
    """Return the header that carries such a token."""
    return {"Authorization": f"Bearer {token(role)}"}
