"""The options of the control API."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import click
import pytest

from celerymeter.cli import group
from celerymeter.cli.control import command
from celerymeter.control.settings import ControlSettings, JwtSettings
from celerymeter.settings import BrokerSettings

from .conftest import Run

BROKER, PROMETHEUS = "redis://:hush@127.0.0.1:6379/0", "http://127.0.0.1:9090"
SECRET = "hush, and not a word of it to anybody"
NEEDED = ("--broker-url", BROKER, "--prometheus-url", PROMETHEUS)
BuildControl = Callable[..., ControlSettings]


@pytest.fixture
def build() -> BuildControl:
    """Return a function that gives the settings of ``celerymeter control`` for arguments."""

    def settings(*words: str | Path) -> ControlSettings:
        with command.make_context("control", [str(word) for word in words], parent=click.Context(group)) as ctx:
            return command.settings(ctx)

    return settings


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that holds a secret and a line break, as editors write it."""
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return path


def test_broker_prometheus_and_a_key_are_enough(build: BuildControl, secret: Path) -> None:
    """Every other setting has the default of its dataclass."""
    assert build(*NEEDED, "--jwt-secret-file", secret) == ControlSettings(
        broker=BrokerSettings(url=BROKER),
        prometheus_url=PROMETHEUS,
        jwt=JwtSettings(secrets=(SECRET.encode(),)),
    )


def test_every_field_has_its_option(build: BuildControl, secret: Path, tmp_path: Path) -> None:
    """Every flag sets its field; durations are in seconds."""
    pem, jwks = tmp_path / "key.pem", tmp_path / "jwks.json"
    pem.write_text("a key\n")
    jwks.write_text("{}")
    words = [
        *NEEDED,
        *("--jwt-public-key-file", pem, "--jwt-public-key-file", pem, "--jwks-file", jwks, "--jwt-algorithm", "ES256"),
        *("--jwt-issuer", "us", "--jwt-audience", "it", "--listen", ":8000", "--metrics-listen", ":0"),
        *("--base-path", "/", "--trusted-proxy", "10.1.2.3/8", "--trusted-proxy", "::1"),
        *("--prometheus-header", "X-Scope-OrgID=eu", "--prometheus-header", "Authorization: Bearer hush"),
        *("--cluster", "eu", "--selector", 'env="prod"', "--alertmanager-url", "http://a:9093"),
        *("--grafana-url", "http://g:3000", "--result-backend-url", "redis://b/1", "--state-dir", tmp_path),
        *("--audit-key-file", secret, "--audit-retention", "90d", "--webhook-token-file", secret),
        *("--revoke-hold", "1h", "--feed-interval", "2s", "--feed-max-clients", "9"),
        *("--allow-origin", "null", "--allow-origin", "HTTPS://Grafana.example.com/", "--anonymous-feed"),
        *("--lang", "zh-TW"),
    ]
    assert build(*words) == ControlSettings(
        broker=BrokerSettings(url=BROKER),
        prometheus_url=PROMETHEUS,
        jwt=JwtSettings(public_keys=(b"a key", b"a key"), jwks=b"{}", algorithm="ES256", issuer="us", audience="it"),
        listen=":8000",
        metrics_listen=":0",
        base_path="",
        prometheus_headers={"X-Scope-OrgID": "eu", "Authorization": "Bearer hush"},
        cluster="eu",
        selector='env="prod"',
        result_backend_url="redis://b/1",
        alertmanager_url="http://a:9093",
        grafana_url="http://g:3000",
        state_dir=tmp_path,
        webhook_token=SECRET.encode(),
        audit_key=SECRET.encode(),
        audit_retention=90 * 86400.0,
        trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("::1")),
        allowed_origins=("null", "https://grafana.example.com"),
        anonymous_feed=True,
        feed_interval=2.0,
        feed_max_clients=9,
        revoke_hold=3600.0,
        lang="zh-TW",
    )


def test_two_secrets_while_one_is_rotated(build: BuildControl, secret: Path, tmp_path: Path) -> None:
    """Both are accepted, in the order of the options."""
    older = tmp_path / "older"
    older.write_text("older" * 8)
    both = build(*NEEDED, "--jwt-secret-file", secret, "--jwt-secret-file", older).jwt.secrets
    assert both == (SECRET.encode(), b"older" * 8)


def test_the_secret_may_come_from_the_environment(build: BuildControl, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable holds the secret itself."""
    monkeypatch.setenv("CELERYMETER_JWT_SECRET", SECRET)
    assert build(*NEEDED).jwt.secrets == (SECRET.encode(),)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--broker-url: missing"),
        (["--broker-url", BROKER], "--prometheus-url: missing"),
        ([*NEEDED], "give exactly one of --jwt-secret-file"),
        ([*NEEDED, "--jwt-secret", "hush"], "--jwt-secret-file: must have at least 32 bytes"),
        ([*NEEDED, "--jwt-secret-file", "/nonexistent"], "--jwt-secret-file: cannot read /nonexistent"),
        ([*NEEDED, "--jwt-secret", SECRET, "--webhook-token", "hush"], "--webhook-token-file: must have at least 16"),
        ([*NEEDED, "--jwt-secret", SECRET, "--audit-key", "hush"], "--audit-key-file: must have at least 32 bytes"),
        ([*NEEDED, "--jwt-secret", SECRET, "--state-dir", "/dev/null/x"], "--state-dir /dev/null/x: cannot be created"),
        (["--trusted-proxy", "everybody"], "--trusted-proxy: 'everybody' is not a network or an address"),
        (["--prometheus-header", "hush"], "--prometheus-header: the value is not a header"),
        (["--prometheus-header", "a=b\r\nhush: x"], "--prometheus-header: the value is not a header"),
        (["--base-path", "a b"], "--base-path: 'a b' is not a path"),
        (["--allow-origin", "example.com"], "--allow-origin: 'example.com' is not an origin"),
        (["--jwt-algorithm", "none"], "--jwt-algorithm: 'none' is not one of"),
        (["--feed-interval", "0"], "--feed-interval: '0' is not a duration of at least 1s"),
        (["--lang", "fr"], "--lang: 'fr' is not one of"),
    ],
)
def test_a_wrong_value_is_one_line(run: Run, words: list[str], says: str) -> None:
    """It names the setting and what is accepted, without secrets; the exit status is 2 and nothing is served."""
    outcome = run("control", *words)
    assert (outcome.status, says in outcome.err) == (2, True), outcome.err
    assert outcome.err.count("\n") == 1
    assert "hush" not in outcome.err


def test_secrets_are_not_among_the_settings_that_are_printed(build: BuildControl, secret: Path) -> None:
    """A log may contain a settings object."""
    words = [*NEEDED, "--jwt-secret-file", secret, "--audit-key-file", secret, "--webhook-token-file", secret]
    shown = repr(build(*words, "--prometheus-header", "Authorization=hush", "--result-backend-url", "redis://:hush@b"))
    assert "hush" not in shown


def test_a_variable_holds_a_header_a_line(build: BuildControl, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header may contain blanks, as one with a bearer token does."""
    monkeypatch.setenv("CELERYMETER_PROMETHEUS_HEADER", "Authorization=Bearer hush\nX-Scope-OrgID=eu")
    settings = build(*NEEDED, "--jwt-secret-file", secret)
    assert settings.prometheus_headers == {"Authorization": "Bearer hush", "X-Scope-OrgID": "eu"}
