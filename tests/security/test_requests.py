"""What our requests carry: no password of ~/.netrc, and text that is not ASCII as UTF-8."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.security.hostile_server import HostileServer, answers

from celerymeter.bounded_http import Unsendable, fetch
from celerymeter.cli import main
from celerymeter.cli.control_client import ControlClient
from celerymeter.errors import ControlError, PrometheusError
from celerymeter.prometheus import PrometheusClient, PrometheusSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """A server that answers with an empty object."""
    with HostileServer(answers(b"{}")) as started:
        yield started


def authorization(server: HostileServer) -> str | None:
    """Return the header of the last request; user and password decoded."""
    for line in server.heads[-1].decode().split("\r\n"):
        name, _, value = line.partition(": ")
        if name.lower() == "authorization":
            scheme, _, rest = value.partition(" ")
            return base64.b64decode(rest).decode() if scheme == "Basic" else value
    return None


def test_netrc_is_not_read(server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its password would go out instead of our token, and to any server that an option names."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password hush\n")
    monkeypatch.setenv("NETRC", str(netrc))
    ControlClient(server.url, "a-token").call("GET", "/tasks", dict)
    assert authorization(server) == "Bearer a-token"
    fetch("GET", server.url, timeout=5, max_bytes=1000)
    assert authorization(server) is None


def test_user_and_password_may_be_in_any_script(server: HostileServer) -> None:
    """Of the URL, and those that are given beside it; in UTF-8, as browsers send them."""
    fetch("GET", server.url.replace("://", "://王:密@"), timeout=5, max_bytes=1000)
    assert authorization(server) == "王:密"
    fetch("GET", server.url, auth=("王", "密"), timeout=5, max_bytes=1000)
    assert authorization(server) == "王:密"


def test_a_header_may_be_in_any_script(server: HostileServer) -> None:
    """A tenant, for example; the token of a file with a byte order mark is one that the server refuses."""
    settings = PrometheusSettings(server.url, headers={"X-Scope-OrgID": "租戶"}, timeout=5)
    with PrometheusClient(settings) as client, pytest.raises(PrometheusError):
        client.instant("up")
    assert "X-Scope-OrgID: 租戶\r\n".encode() in server.heads[-1]
    ControlClient(server.url, "\ufeffa-token").call("GET", "/tasks", dict)
    assert authorization(server) == "Bearer \ufeffa-token"


def test_a_bundle_of_authorities_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for before anything is sent."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    with pytest.raises(Unsendable, match=r"/nonexistent; check REQUESTS_CA_BUNDLE"):
        fetch("GET", "https://127.0.0.1:1", timeout=5, max_bytes=1000)
    with pytest.raises(ControlError, match=r"^https://127\.0\.0\.1:1/celery-admin: .*/nonexistent"):
        ControlClient("https://127.0.0.1:1", "a-token").call("GET", "/tasks", dict)


def test_a_byte_order_mark_is_no_part_of_a_token(
    server: HostileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Editors of Windows write it."""
    token = tmp_path / "token"
    token.write_bytes(b"\xef\xbb\xbfa-token\r\n")
    main(["task", "--control-url", server.url, "--token-file", str(token), "an-id"])
    assert authorization(server) == "Bearer a-token"
    assert "is not a control API" in capsys.readouterr().err
