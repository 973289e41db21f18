"""Settings and tokens for tests of the control API."""

from __future__ import annotations

import time

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


def token(role: Role = Role.VIEWER, *, ttl: float = 6 * 3600.0, subject: str = "someone") -> str:
    """Return a token that `control_settings` accept."""
    return mint(secret=SECRET, subject=subject, role=role, now=time.time(), ttl=ttl, extra={})


def bearer(role: Role = Role.VIEWER) -> dict[str, str]:
    """Return the header that carries such a token."""
    return {"Authorization": f"Bearer {token(role)}"}
