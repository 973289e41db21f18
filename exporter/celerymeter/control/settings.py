"""The settings of the control API, as one frozen value; each field carries its option. Durations are in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import click

from celerymeter.control.keys import check_strength
from celerymeter.kinds import (
    BACKEND_URL,
    BASE_PATH,
    CIDR,
    COUNT,
    DIRECTORY,
    DURATION,
    FILE,
    HTTP_URL,
    INTERVAL,
    LISTEN,
    NAMES,
    ORIGIN,
    SWITCH,
    TEXT,
    duration,
)
from celerymeter.options import group, not_an_option, option, secret, setting
from celerymeter.settings import BrokerSettings, cluster_setting, headers_setting, selector_setting

Network = IPv4Network | IPv6Network

MIN_SECRET_BYTES = 32
MIN_WEBHOOK_BYTES = 16
MAX_LIFETIME = 366 * 86400.0
"""Seconds that a token may still be valid, unless the operator allows more."""
LIFETIME = duration(minimum=1.0, maximum=10 * MAX_LIFETIME)


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """Settings of token verification. Exactly one kind of key: secrets (HS256), public keys, or a JWKS file.

    ``secrets`` and ``public_keys`` may hold two entries while keys are rotated. ``algorithm`` is the one that the
    operator chose, or None for the kind's default (HS256, RS256).
    """

    secrets: tuple[bytes, ...] = secret(
        (),
        "File that holds the HS256 secret of the tokens, at least 32 bytes; give a second one during a rotation.",
        flag="--jwt-secret",
        repeated=True,
    )
    public_keys: tuple[bytes, ...] = secret(
        (),
        "PEM file of the public key that verifies RS256 or ES256 tokens; give a second one during a rotation.",
        flag="--jwt-public-key",
        repeated=True,
        only_file=True,
    )
    jwks: bytes | None = secret(None, "JSON Web Key Set that holds those public keys.", only_file=True)
    algorithm: str | None = setting(
        None,
        click.Choice(["HS256", "RS256", "ES256"]),
        "The only algorithm to accept. By default HS256 with a secret, RS256 with public keys.",
        flag="--jwt-algorithm",
    )
    issuer: str | None = setting(None, TEXT, "Value that the iss claim of tokens must have.", flag="--jwt-issuer")
    audience: str | None = setting(None, TEXT, "Value that the aud claim of tokens must have.", flag="--jwt-audience")
    max_lifetime: float = setting(
        MAX_LIFETIME,
        LIFETIME,
        "Longest time for which a token may still be valid; one that expires later is refused.",
        flag="--jwt-max-lifetime",
    )
    denied: Path | None = setting(
        None,
        FILE,
        "File of token ids (jti), one a line, that are refused before they expire; read again when it changes.",
        flag="--jwt-denied-file",
    )


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits for the requests of one address or subject."""

    body_bytes: int = 4 * 1024 * 1024
    auth_failures_per_minute: float = 60.0
    requests_per_minute: float = 1200.0
    lookups_per_minute: float = 600.0
    read_seconds: float = 20.0
    """Time in which a client must send a whole request."""


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Everything that the control API needs."""

    broker: BrokerSettings = field(metadata=group(BrokerSettings))
    prometheus_url: str = field(
        repr=False,
        metadata=option(
            HTTP_URL,
            "Prometheus, or a server with the same API (VictoriaMetrics, Thanos, Mimir): the source of all metrics.",
        ),
    )
    jwt: JwtSettings = field(metadata=group(JwtSettings))
    listen: str = setting("127.0.0.1:8000", LISTEN, "Address of the API.")
    metrics_listen: str = setting(
        "127.0.0.1:9809",
        LISTEN,
        "Address of the API's own /metrics, separate from the API so that no client delays a scrape.",
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        NAMES,
        "Names under which the API and its metrics may be addressed; requests for others are refused. IP addresses and "
        "localhost are always allowed. By default all names, but with --anonymous-feed none for web pages without a "
        "token, as a page could read the feed through a name of its own.",
    )
    base_path: str = setting("/celery-admin", BASE_PATH, "Path under which the API is served.")
    trusted_proxies: tuple[Network, ...] = setting(
        (),
        CIDR,
        "Network of reverse proxies whose X-Forwarded-For header is trusted for the client's address; may be repeated.",
        flag="--trusted-proxy",
        repeated=True,
    )
    prometheus_headers: Mapping[str, str] = headers_setting()
    cluster: str | None = cluster_setting("serve")
    selector: str = selector_setting()
    alertmanager_url: str | None = setting(None, HTTP_URL, "Alertmanager, whose health /system/status reports.")
    grafana_url: str | None = setting(None, HTTP_URL, "Grafana, to which the dashboard reply links.")
    result_backend_url: str | None = setting(
        None,
        BACKEND_URL,
        "The cluster's result backend, from which revocation learns how tasks ended.",
        file="File that holds the URL of the result backend.",
    )
    state_dir: Path | None = setting(
        None,
        DIRECTORY,
        "Local directory for the audit trail, revoke batches, alerts and reports. Without it they are lost when the "
        "process ends.",
    )
    audit_key: bytes | None = secret(
        None,
        "File that holds the key that seals the audit trail. By default a key is created in the state directory.",
    )
    audit_retention: float = setting(365 * 86400.0, INTERVAL, "How long the rows of the audit trail are kept.")
    webhook_token: bytes | None = secret(
        None,
        "File that holds the bearer token with which Alertmanager calls /alerts/webhook.",
    )
    revoke_hold: float = setting(
        86400.0, DURATION, "How long to keep sending a revoke that is not settled to the workers."
    )
    feed_interval: float = setting(5.0, INTERVAL, "Time between two updates of the live feed.")
    feed_max_clients: int = setting(200, COUNT, "Maximum number of WebSocket clients at the same time.")
    allowed_origins: tuple[str, ...] = setting(
        (),
        ORIGIN,
        "Origin of web pages that may open the live feed, besides the API's own; may be repeated.",
        flag="--allow-origin",
        repeated=True,
    )
    anonymous_feed: bool = setting(
        False, SWITCH, "Let clients without a token read the live feed: metrics and alerts, nothing else."
    )
    lang: str = setting("en", click.Choice(["en", "zh-TW"]), "Language of texts for people.")
    limits: RequestLimits = field(
        default=RequestLimits(), metadata=not_an_option("they protect the process; only tests change them")
    )

    def __post_init__(self) -> None:
        """Refuse a webhook token that could be guessed."""
        if self.webhook_token is not None:
            check_strength(self.webhook_token, at_least=MIN_WEBHOOK_BYTES, option="--webhook-token-file")
