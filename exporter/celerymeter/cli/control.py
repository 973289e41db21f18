"""``celerymeter control``: its options, and the settings that they make."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from celerymeter.cli.command import F, Values, setting, settings_command
from celerymeter.cli.options import (
    DIRECTORY,
    FILE,
    broker_options,
    broker_settings,
    default_of,
    fields_of,
    options,
    prometheus_url_option,
    require,
)
from celerymeter.cli.secrets import read_secret
from celerymeter.cli.values import COUNT, DURATION, HTTP_URL, INTERVAL, LISTEN, Kind, Url
from celerymeter.control.settings import MIN_WEBHOOK_BYTES, ControlSettings, JwtSettings, Network
from celerymeter.errors import SettingsError
from celerymeter.urls import without_password

_default = partial(default_of, ControlSettings)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*[=:]\s*([^\r\n]+)")
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_ORIGIN = re.compile(r"null|\*|https?://[A-Za-z0-9.-]+(:\d+)?|https?://\[[0-9a-fA-F:]+\](:\d+)?")


class Cidr(Kind):
    """A network, or one address."""

    name = "cidr"
    accepts = "a network or address: 10.0.0.0/8, fd00::/8, 127.0.0.1"

    def parse(self, value: Any) -> Network:
        """The network."""
        return ipaddress.ip_network(str(value).strip(), strict=False)


class Header(Kind):
    """``Name=value``, or ``Name: value``; the value may be a secret."""

    name = "k=v"
    accepts = "a header: X-Scope-OrgID=tenant, Authorization=Bearer …"

    def parse(self, value: Any) -> tuple[str, str]:
        """Name and value."""
        if not (found := _HEADER.fullmatch(str(value).strip())):
            raise ValueError
        return found[1], found[2]

    def refuse(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> NoReturn:  # noqa: ARG002 - not shown, on purpose
        """Fail without showing the value."""
        self.fail(f"not {self.accepts}", param, ctx)


class BasePath(Kind):
    """A path without a slash at its end; ``/`` is the root."""

    name = "path"
    accepts = "a path such as /celery-admin, or / for the root"

    def parse(self, value: Any) -> str:
        """The path; the root is empty."""
        path = str(value).strip().rstrip("/")
        if not _BASE_PATH.fullmatch(path):
            raise ValueError(value)
        return path


class Origin(Kind):
    """An origin as a browser sends it."""

    name = "origin"
    accepts = "an origin: https://grafana.example.com, null (a page from a file), or * for all"

    def parse(self, value: Any) -> str:
        """The origin."""
        origin = str(value).strip().lower().rstrip("/")
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(value)
        return origin


def masked(_: object) -> str:
    """What is printed of a secret."""
    return "***"


def secret_option(flag: str, text: str, *, multiple: bool = False) -> Callable[[F], F]:
    """A secret by file; beside it the same without ``-file``, which only the environment should give."""
    return options(
        setting(f"{flag}-file", FILE, multiple=multiple, help=text),
        setting(flag, mask=masked, hidden=True, help="The same, itself; meant for the environment."),
    )


serving = options(
    setting("--listen", LISTEN, default=_default("listen"), help="Address of the API."),
    setting(
        "--metrics-listen",
        LISTEN,
        default=_default("metrics_listen"),
        help="Address of the API's own /metrics: a listener of its own, so that no client of the API delays a scrape.",
    ),
    setting("--base-path", BasePath(), default=_default("base_path"), help="What all paths begin with."),
    setting(
        "--trusted-proxy",
        Cidr(),
        multiple=True,
        help="Network of reverse proxies whose X-Forwarded-For says where a request comes from; may be repeated.",
    ),
)
sources = options(
    prometheus_url_option("Prometheus, or what speaks its API (VictoriaMetrics, Thanos, Mimir): all figures are its."),
    setting(
        "--prometheus-header",
        Header(),
        multiple=True,
        mask=lambda pairs: " ".join(f"{name}=***" for name, _ in pairs),
        help="Header for Prometheus: a tenant, a token; may be repeated.",
    ),
    setting("--cluster", help="The cluster to speak of, where Prometheus has several (label cluster)."),
    setting("--selector", help="Further label matchers for every query: 'env=\"prod\"'."),
    setting("--alertmanager-url", HTTP_URL, mask=without_password, help="Alertmanager, for /system/status."),
    setting("--grafana-url", HTTP_URL, mask=without_password, help="Grafana, for the links of the dashboard reply."),
    setting(
        "--result-backend-url",
        Url(example="redis://:PASSWORD@HOST:6379/1"),
        mask=without_password,
        help="The cluster's result backend, where revocation looks up how tasks ended.",
    ),
    setting("--result-backend-url-file", FILE, help="File that holds that URL."),
)
tokens = options(
    secret_option(
        "--jwt-secret",
        "File of the HS256 secret that tokens are signed with, at least 32 bytes; a second one while it is rotated.",
        multiple=True,
    ),
    setting(
        "--jwt-public-key-file",
        FILE,
        multiple=True,
        help="PEM file of the public key that verifies RS256 or ES256 tokens; a second one while it is rotated.",
    ),
    setting("--jwks-file", FILE, help="JSON Web Key Set with those public keys."),
    setting(
        "--jwt-algorithm",
        click.Choice(["HS256", "RS256", "ES256"]),
        help="The one algorithm that is accepted: HS256 for secrets; RS256 for public keys unless given.",
    ),
    setting("--jwt-issuer", help="The iss that tokens must have."),
    setting("--jwt-audience", help="The aud that tokens must have."),
)
keeping = options(
    setting(
        "--state-dir",
        DIRECTORY,
        help="Local folder for the audit trail, batches, holds, alerts and reports; replicas on one machine may share "
        "it. Without it they end with the program.",
    ),
    secret_option("--audit-key", "File of the key that seals the audit trail; one is made in the state directory."),
    setting("--audit-retention", INTERVAL, default=_default("audit_retention"), help="How long audit rows are kept."),
    secret_option("--webhook-token", "File of the bearer token that Alertmanager sends to /alerts/webhook."),
    setting("--revoke-hold", DURATION, default=_default("revoke_hold"), help="How long an unsettled revoke is held."),
)
feed = options(
    setting("--feed-interval", INTERVAL, default=_default("feed_interval"), help="Between two updates of the feed."),
    setting("--feed-max-clients", COUNT, default=_default("feed_max_clients"), help="WebSocket clients at once."),
    setting(
        "--allow-origin",
        Origin(),
        multiple=True,
        help="Origin of pages that may open the feed, besides this host's own; may be repeated.",
    ),
    setting(
        "--anonymous-feed/--no-anonymous-feed",
        default=False,
        help="Let the feed be read without a token: figures and alerts, never more.",
    ),
    setting("--lang", click.Choice(["en", "zh-TW"]), default=_default("lang"), help="Language of texts for people."),
)


def secrets_of(values: Values, name: str) -> tuple[bytes, ...]:
    """The secrets of a `secret_option` that may be repeated: those of files, else the one of the environment."""
    files = tuple(read_secret(path, name=f"{name}_file").encode() for path in values[f"{name}_file"])
    return files or ((values[name].encode(),) if values[name] else ())


def jwt_settings(values: Values) -> JwtSettings:
    """Which tokens are accepted, by the values of `tokens`."""
    return JwtSettings(
        secrets=secrets_of(values, "jwt_secret"),
        public_keys=tuple(_bytes(path, "jwt_public_key_file") for path in values["jwt_public_key_file"]),
        jwks=_bytes(values["jwks_file"], "jwks_file") if values["jwks_file"] else None,
        algorithm=values["jwt_algorithm"],
        issuer=values["jwt_issuer"],
        audience=values["jwt_audience"],
    )


def _bytes(path: Path, name: str) -> bytes:
    return read_secret(path, name=name).encode()


def control_settings(values: Values) -> ControlSettings:
    """The control API's settings of its options."""
    given = fields_of(ControlSettings, values)
    for name in ("audit_key", "webhook_token"):
        if name in given:
            given[name] = given[name].encode()
    if len(given.get("webhook_token", b"x" * MIN_WEBHOOK_BYTES)) < MIN_WEBHOOK_BYTES:
        raise SettingsError(f"--webhook-token-file: a token of at least {MIN_WEBHOOK_BYTES} bytes is needed")
    return ControlSettings(
        **{
            **given,
            "broker": broker_settings(values),
            "prometheus_url": require(values, "prometheus_url"),
            "prometheus_headers": dict(values["prometheus_header"]),
            "trusted_proxies": values["trusted_proxy"],
            "allowed_origins": values["allow_origin"],
            "jwt": jwt_settings(values),
        }
    )


@settings_command("control", build=control_settings, logs="json")
@broker_options
@sources
@serving
@tokens
@keeping
@feed
def command(settings: ControlSettings) -> int:
    """Serve the control API: monitoring by PromQL, a live feed, revocation, reports, an audit trail.

    It needs the broker, a Prometheus that scrapes the exporter, and a key that tells who asks: make one by
    `openssl rand -hex 32 > secret`, and tokens by `celerymeter token`.
    """
    from celerymeter.control.server import run

    return run(settings)
