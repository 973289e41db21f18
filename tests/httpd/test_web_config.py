"""The web config file: what it may say, and the one line when it says something else."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from celerymeter.errors import SettingsError
from celerymeter.httpd import MetricsServer, WebConfig, load_web_config
from celerymeter.httpd.web_config import Certificates, TlsConfig

from .conftest import Authority

HASH = "$2y$05$" + "a" * 53


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path at which a test writes its file."""
    return tmp_path / "web.yml"


def test_an_empty_file_protects_nothing(file: Path) -> None:
    """As with Prometheus' own exporters."""
    file.write_text("")
    assert load_web_config(file) == WebConfig()


def test_a_whole_file(file: Path) -> None:
    """TLS with client certificates, users and headers; relative paths are beside the file."""
    file.write_text(
        "tls_server_config:\n  cert_file: own.pem\n  key_file: /keys/own.key\n  min_version: TLS13\n"
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"
        f"basic_auth_users:\n  alice: '{HASH}'\n"
        "http_server_config:\n  http2: true\n  headers:\n    Strict-Transport-Security: max-age=60\n"
    )
    assert load_web_config(file) == WebConfig(
        tls=TlsConfig(
            cert_file=file.parent / "own.pem",
            key_file=Path("/keys/own.key"),
            client_auth=ssl.CERT_REQUIRED,
            client_ca_file=file.parent / "ca.pem",
            min_version=ssl.TLSVersion.TLSv1_3,
        ),
        users={"alice": HASH},
        headers={"Strict-Transport-Security": "max-age=60"},
    )


TLS = "tls_server_config: {cert_file: a, key_file: b"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("rate_limit: 5", "unknown key rate_limit; known are basic_auth_users, http_server_config, tls_server_config"),
        (f"{TLS}, cipher_suites: []}}", "unknown key tls_server_config.cipher_suites; known are cert_file"),
        ("http_server_config: {h2: true}", "unknown key http_server_config.h2"),
        ("tls_server_config: {cert_file: a}", "tls_server_config needs cert_file and key_file"),
        (f"{TLS}, min_version: TLS11}}", "tls_server_config.min_version: 'TLS11' is none of TLS12, TLS13"),
        (f"{TLS}, min_version: [1]}}", "tls_server_config.min_version: [1] is none of TLS12, TLS13"),
        (f"{TLS}, client_auth_type: RequireAnyClientCert}}", "client_auth_type: 'RequireAnyClientCert' is none of"),
        (f"{TLS}, client_auth_type: RequireAndVerifyClientCert}}", "client_ca_file and a verifying client_auth_type"),
        (f"{TLS}, client_ca_file: c}}", "client_ca_file and a verifying client_auth_type"),
        ("basic_auth_users: {bob: hush}", "basic_auth_users.bob: not a bcrypt hash (make one with `htpasswd -nB bob`)"),
        ("basic_auth_users: [bob]", "basic_auth_users must be a mapping"),
        ('http_server_config: {headers: {X: "a\\r\\nb"}}', "http_server_config.headers.X: not a header"),
        ("[]", "the file must be a mapping"),
        ("a: [", "not YAML (line 1)"),
    ],
)
def test_what_is_wrong_is_one_line(file: Path, content: str, says: str) -> None:
    """It names the option, the file and the key, and shows no secret."""
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        load_web_config(file)
    line = str(caught.value)
    assert line.startswith(f"--web.config.file: {file}: ")
    assert says in line
    assert "\n" not in line
    assert "hush" not in line


def test_a_file_that_cannot_be_read(file: Path) -> None:
    """Absent, or not text."""
    with pytest.raises(SettingsError, match=r"cannot read .*: No such file"):
        load_web_config(file)
    file.write_bytes(b"\xff\x00")
    with pytest.raises(SettingsError, match="not UTF-8 text"):
        load_web_config(file)


def test_unusable_certificates_fail_at_start(authority: Authority, tmp_path: Path) -> None:
    """An absent file, one that is no PEM, and a key of another certificate."""
    cert, key = authority.issue("one")
    _, other_key = authority.issue("two")
    (tmp_path / "bad.pem").write_text("no certificate")
    for pair in ((tmp_path / "none.pem", key), (tmp_path / "bad.pem", key), (cert, other_key)):
        config = WebConfig(tls=TlsConfig(*pair))
        with pytest.raises(SettingsError, match=r"--web\.config\.file: "):
            MetricsServer("127.0.0.1:0", page=list, healthy=str, ready=str, web_config=config)


def test_a_broken_renewal_keeps_the_old_certificate(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the file."""
    cert, key = authority.issue("broken")
    certificates = Certificates(TlsConfig(cert, key))
    cert.write_text("half writ")
    certificates.refresh()
    assert f"keeping the old certificate: --web.config.file: {cert}: not usable" in caplog.text
    key.unlink()
    certificates.refresh()
    assert "No such file" in caplog.text
