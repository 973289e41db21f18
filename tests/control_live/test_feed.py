"""The feed as its clients see it, on a real server."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.control.access import SECRET, token
from tests.control.serving import Control
from tests.control_live.live_api import INTERVAL, LiveApi, drain, feed, messages, running_api, until
from websockets.exceptions import InvalidStatus

from celerymeter.control.tokens import Role, mint
from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApi]:
    """One API for tests that leave it as it was."""
    with running_api(tmp_path_factory.mktemp("api"), ["--feed-max-clients", "12"]) as api:
        yield api


def test_a_client_is_greeted_and_kept_up_to_date(api: LiveApi) -> None:
    """Greeting, dashboard, then an update every interval, numbered without a gap."""
    with api.feed() as client:
        first = [message for _, message in zip(range(5), messages(client), strict=False)]

    kinds = [message["message_type"] for message in first]
    assert kinds == ["connection_established", "dashboard_data", "metrics_update", "metrics_update", "metrics_update"]
    assert first[0]["data"]["client_count"] >= 1
    assert first[0]["data"]["interval_seconds"] == INTERVAL
    assert first[1]["data"]["real_time_metrics"]["active_workers"] == 1
    assert [message["seq"] - first[0]["seq"] for message in first[2:]] == [1, 2, 3]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", message["timestamp"]) for message in first)


def test_updates_follow_the_metrics(api: LiveApi) -> None:
    """A new value reaches the clients a moment after Prometheus scraped it."""
    with api.feed() as client:
        api.page.queues = {"celery": 3, "slow": 4}
        found = until(client, lambda m: m["data"].get("metrics", {}).get("pending_tasks") == 7)
        api.page.queues = {"celery": 0}

    assert found["data"]["metrics"]["queue_lengths"] == {"celery": 3, "slow": 4}


def test_a_client_that_comes_back_is_sent_what_it_missed(api: LiveApi) -> None:
    """Everything after the number that it names, once, then on without a gap."""
    with api.feed() as client:
        seen = until(client, lambda m: m["message_type"] == "metrics_update")["seq"]
    time.sleep(2 * INTERVAL)
    with api.feed(f"?since={seen}") as client:
        greeting = next(messages(client))
        next(messages(client))
        numbers = [message["seq"] for _, message in zip(range(4), messages(client), strict=False)]

    assert greeting["data"]["complete"] is True
    assert numbers == list(range(seen + 1, seen + 5))


@pytest.mark.parametrize("since", ["1", "99999999999999"])
def test_a_client_that_was_away_too_long_is_told_so(api: LiveApi, since: str) -> None:
    """Updates that are forgotten, or never were, cannot be resumed."""
    with api.feed(f"?since={since}") as client:
        assert next(messages(client))["data"]["complete"] is False
        client.socket.shutdown(socket.SHUT_RDWR)  # unread messages would hold up a closing handshake


def closed(url: str, *, bearer: str | None = None, protocols: Sequence[str] = ()) -> int:
    """Connect, be closed, and say by which code."""
    with feed(url, bearer=bearer, protocols=protocols) as client:
        return drain(client).code


def forged(**changes: Any) -> str:
    """A token that is wrong in one way."""
    values: dict[str, object] = {"secret": SECRET, "subject": "x", "role": Role.VIEWER, "now": time.time(), "ttl": 60.0}
    return mint(**{**values, "extra": {}, **changes})


def test_no_token_or_a_bad_one_is_closed_with_4401(api: LiveApi) -> None:
    """Absent, expired, signed by another, no token at all; wherever it is put."""
    expired = forged(now=time.time() - 1000)
    foreign = forged(secret=b"another secret, which is not ours and long enough")
    assert closed(api.feed_url) == 4401
    assert closed(f"{api.feed_url}?access_token={expired}") == 4401
    assert closed(api.feed_url, bearer=foreign) == 4401
    assert closed(api.feed_url, bearer="x") == 4401
    assert closed(api.feed_url, protocols=["celerymeter.v1", "bearer.x"]) == 4401


def test_a_token_may_come_three_ways_and_never_goes_back(api: LiveApi) -> None:
    """Header, query, subprotocol; only the protocol's name is echoed."""
    with api.feed(protocols=["celerymeter.v1"]) as client:
        assert client.subprotocol == "celerymeter.v1"
    with feed(f"{api.feed_url}?access_token={token()}") as client:
        assert next(messages(client))["message_type"] == "connection_established"
    with feed(api.feed_url, protocols=["celerymeter.v1", f"bearer.{token()}"]) as client:
        assert next(messages(client))["message_type"] == "connection_established"
        assert client.subprotocol == "celerymeter.v1"


def test_a_token_ends_its_connection_when_it_expires(api: LiveApi) -> None:
    """To the second, while updates flow."""
    short = forged(ttl=2.0)
    begun = time.monotonic()

    assert closed(api.feed_url, bearer=short) == 4401
    assert 0.5 < time.monotonic() - begun < 4


def test_no_log_shows_a_token(api: LiveApi) -> None:
    """Not of a good one, not of a bad one, not of a request that is no WebSocket."""
    secret = token()
    with feed(f"{api.feed_url}?access_token={secret}") as client:
        next(messages(client))
    closed(f"{api.feed_url}?access_token=bad{secret}")
    requests.get(f"{api.feed_url.replace('ws', 'http', 1)}?access_token={secret}", timeout=30)
    with socket.create_connection(api.control.address) as plain:
        plain.sendall(f"GET /celery-admin/monitoring/ws?access_token={secret} HTTP/9.9\r\n\r\n".encode())
        plain.recv(1000)

    assert secret.rpartition(".")[2] not in api.control.log.read_text()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "nonsense"])
def test_another_sites_page_is_refused(api: LiveApi, origin: str) -> None:
    """Whatever token it has, before the handshake."""
    with pytest.raises(InvalidStatus) as caught, api.feed(origin=origin):
        pass

    assert caught.value.response.status_code == 403


def test_a_page_of_the_same_host_is_let_in(api: LiveApi) -> None:
    """Its origin is where the request goes."""
    with api.feed(origin=api.control.root) as client:
        assert next(messages(client))["message_type"] == "connection_established"


def test_too_many_clients_are_asked_to_come_later(api: LiveApi) -> None:
    """Closed with 1013, and let in as soon as one has left."""
    wait_until(lambda: api.control.get("/monitoring/status").json()["feed_clients"] == 0)
    with ExitStack() as clients:
        for _ in range(12):
            next(messages(clients.enter_context(api.feed())))
        assert closed(api.feed_url, bearer=token()) == 1013
    wait_until(lambda: api.control.get("/monitoring/status").json()["feed_clients"] == 0)
    with api.feed() as client:
        next(messages(client))


def test_what_a_client_sends_is_thrown_away_and_bounded(api: LiveApi) -> None:
    """A word harms nothing, a flood is closed with 1009."""
    with api.feed() as client:
        client.send("hello")
        client.ping().wait(5)
        until(client, lambda m: m["message_type"] == "metrics_update")
    with api.feed() as client:
        client.send("x" * 100_000)
        assert drain(client).code == 1009


def test_a_plain_request_is_told_what_this_is(api: LiveApi) -> None:
    """A GET without a handshake is a problem, not an open connection."""
    answer = requests.get(api.feed_url.replace("ws", "http", 1), timeout=30)

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert "ws://" in answer.json()["detail"]


def test_strangers_may_listen_only_where_that_was_chosen(tmp_path: Path) -> None:
    """With --anonymous-feed no token is needed; a bad one is still refused. Other origins are named."""
    options = ["--anonymous-feed", "--allow-origin", "null"]
    with Control(tmp_path, options) as control:
        url = control.up().url.replace("http", "ws", 1) + "/monitoring/ws"
        with feed(url, origin="null") as client:
            assert next(messages(client))["message_type"] == "connection_established"
            assert next(messages(client))["data"]["code"] == "prometheus_unavailable"
        assert closed(f"{url}?access_token=bad") == 4401
        with pytest.raises(InvalidStatus), feed(url, origin="https://evil.example"):
            pass


def test_clients_are_told_goodbye_when_the_server_stops(tmp_path: Path) -> None:
    """1001, at once, also with a client that reads nothing."""
    with Control(tmp_path, ["--anonymous-feed"]) as control:
        url = control.up().url.replace("http", "ws", 1) + "/monitoring/ws"
        with feed(url) as client, feed(url):
            next(messages(client))
            begun = time.monotonic()
            control.stop()
            assert drain(client).code == 1001
        assert time.monotonic() - begun < 5
    assert "Traceback" not in control.log.read_text()
