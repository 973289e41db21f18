"""What the control API is told, as one frozen value that `celerymeter.cli` builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from celerymeter.settings import BrokerSettings

Network = IPv4Network | IPv6Network

MIN_SECRET_BYTES = 32
MIN_WEBHOOK_BYTES = 16


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """Which tokens are accepted. Exactly one kind of key: secrets (HS256), public keys, or a JWKS file.

    ``secrets`` and ``public_keys`` may hold two entries while keys are rotated. ``algorithm`` is what the operator
    pinned, or None for the kind's default (HS256, RS256).
    """

    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    public_keys: tuple[bytes, ...] = ()
    jwks: bytes | None = field(default=None, repr=False)
    algorithm: str | None = None
    issuer: str | None = None
    audience: str | None = None
    leeway: float = 30.0


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one address or subject may ask for."""

    body_bytes: int = 4 * 1024 * 1024
    auth_failures_per_minute: float = 60.0
    requests_per_minute: float = 1200.0
    read_seconds: float = 20.0
    """How long a client may take to send a whole request."""


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Everything the control API needs; durations in seconds."""

    broker: BrokerSettings
    prometheus_url: str
    jwt: JwtSettings
    listen: str = "127.0.0.1:8000"
    metrics_listen: str = "127.0.0.1:9809"
    base_path: str = "/celery-admin"
    prometheus_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cluster: str | None = None
    selector: str = ""
    result_backend_url: str | None = field(default=None, repr=False)
    alertmanager_url: str | None = None
    grafana_url: str | None = None
    state_dir: Path | None = None
    webhook_token: bytes | None = field(default=None, repr=False)
    audit_key: bytes | None = field(default=None, repr=False)
    audit_retention: float = 365 * 86400.0
    trusted_proxies: tuple[Network, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    anonymous_feed: bool = False
    feed_interval: float = 5.0
    feed_max_clients: int = 200
    revoke_hold: float = 86400.0
    lang: str = "en"
    limits: RequestLimits = RequestLimits()
