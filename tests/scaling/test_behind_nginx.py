"""The control API behind a real nginx: TLS, the feed, addresses, and a restart."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from tests.apps.worker_app import make_app
from tests.control.access import bearer, token
from tests.control.serving import Control
from tests.control_live.live_api import drain, messages, until
from tests.revocation.cluster import statuses
from tests.scaling.edge import Edge, behind, speaks_plain_http
from tests.workers import start_worker
from websockets.exceptions import InvalidStatus

from celerymeter.control.audit.offline import read_rows
from celerymeter.control.tokens import Role
from celerymeter.demo.processes import free_port, wait_until
from celerymeter.demo.servers import Redis
from celerymeter.errors import StartFailed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

BATCH = "/tasks/batch"
PARKED = "parked"
"""A queue that nobody consumes before a test wants it."""


@dataclass
class ProxiedApi:
    """The API, the proxy, and a worker."""

    app: Celery
    state: Path
    broker: str
    control: Control
    edge: Edge

    def park(self) -> str:
        """Send a task that waits; its id."""
        return str(self.app.send_task("tests.add", (1, 2), queue=PARKED).id)

    def addresses(self) -> set[str]:
        """That the audit trail knows."""
        return {row.address for row in read_rows(self.state)}


def request_body(task_id: str) -> dict[str, Any]:
    """A batch revoke of one."""
    return {"task_ids": [task_id], "operation": "revoke", "parameters": {"reason": "a test"}}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedApi]:
    """Everything up; the tests follow each other, and the last one kills the API."""
    folder = tmp_path_factory.mktemp("nginx")
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(folder / "redis")).up()
        app = make_app(redis.url)
        stack.callback(app.close)
        port = free_port()
        control = behind(folder / "control", state=folder / "state", broker=redis.url, port=port)
        stack.enter_context(control).up()
        stack.enter_context(start_worker(redis.url, folder, hostname="w1@test", queues=("fast",)))
        edge = stack.enter_context(Edge(folder / "nginx", port)).up()
        yield ProxiedApi(app, folder / "state", redis.url, control, edge)


def test_only_tls_and_only_with_a_token(api: ProxiedApi) -> None:
    """The API's own refusals come through; what is not the API is not there."""
    assert "400" in speaks_plain_http(api.edge.port)
    assert api.edge.ask("GET", "/system/info", role=None).status_code == 200
    assert api.edge.ask("GET", "/audit", role=None).status_code == 401
    assert api.edge.ask("GET", "/audit", role=Role.VIEWER).status_code == 403
    assert api.edge.ask("GET", "/audit").status_code == 200
    assert api.edge.ask("GET", "/../metrics", role=None).status_code == 404


def test_the_address_is_the_clients_whatever_it_says(api: ProxiedApi) -> None:
    """nginx appends the address that it saw; anybody can write what stands before that."""
    lies = {"X-Forwarded-For": "198.51.100.7"}
    assert api.edge.ask_from("127.0.0.9", "/audit", {**bearer(Role.VIEWER), **lies}) == 403
    wait_until(lambda: "127.0.0.9" in api.addresses(), what="the refusal in the audit trail")
    assert "198.51.100.7" not in api.addresses()


def test_the_feed_is_open_to_tokens_and_to_pages_of_this_host(api: ProxiedApi) -> None:
    """wss, with a token as header or in the query, which is in no log; else it is closed."""
    with api.edge.feed(bearing=bearer(Role.VIEWER), origin=f"https://localhost:{api.edge.port}") as client:
        assert next(messages(client, timeout=60))["message_type"] == "connection_established"
    secret = token()
    with api.edge.feed(f"?access_token={secret}") as client:
        assert next(messages(client, timeout=60))["message_type"] == "connection_established"
    with api.edge.feed() as client:
        assert drain(client).code == 4401
    with pytest.raises(InvalidStatus, match="403"):
        api.edge.feed(bearing=bearer(Role.VIEWER), origin="https://elsewhere.example.net")
    wait_until(lambda: "/monitoring/ws" in api.edge.logged())
    assert secret not in api.edge.logged()


def test_the_same_key_acts_once(api: ProxiedApi) -> None:
    """It gives the stored answer again; with another body it is refused."""
    headers = {**bearer(Role.OPERATOR), "Idempotency-Key": "once"}
    body = request_body(api.park())
    begun = api.edge.ask("POST", BATCH, role=None, json=body, headers=headers)
    assert begun.status_code == 200, begun.text

    replayed = api.edge.ask("POST", BATCH, role=None, json=body, headers=headers)
    assert (replayed.json(), replayed.headers["Idempotency-Replayed"]) == (begun.json(), "true")
    other = api.edge.ask("POST", BATCH, role=None, json=request_body("another"), headers=headers)
    assert other.status_code == 422
    intents = [row for row in read_rows(api.state) if row.kind == "intent" and row.action == "tasks.revoke"]
    assert len(intents) == 1


def test_a_second_process_on_the_state_directory_is_refused(api: ProxiedApi, tmp_path: Path) -> None:
    """The command of the page, run twice."""
    port = free_port()
    with (
        behind(tmp_path / "second", state=api.state, broker=api.broker, port=port) as second,
        pytest.raises(StartFailed, match=f"pid {api.control.pid} on "),
    ):
        second.up()
    assert api.edge.ask("GET", "/audit").status_code == 200


def test_a_batch_goes_on_when_the_api_is_killed_and_started_again(api: ProxiedApi) -> None:
    """Requests come through nginx again, the batch is followed to its end, and the audit trail holds."""
    task_id, secret = api.park(), token()
    begun = api.edge.ask("POST", BATCH, json=request_body(task_id)).json()
    assert statuses(begun) == {task_id: "flagged"}

    api.control.kill()
    assert api.edge.ask("GET", "/system/info", role=None).status_code == 502
    api.control.up()
    with api.edge.feed(f"?access_token={secret}") as client:
        assert api.edge.ask("GET", f"{BATCH}/{begun['batch_id']}").status_code == 200
        wait_until(lambda: goes_on(api.control, begun["batch_id"]), what="the batch to be resumed")
        api.app.control.add_consumer(PARKED, destination=["w1@test"])
        until(client, lambda message: message["data"].get("batch_id") == begun["batch_id"])

    found = api.edge.ask("GET", f"{BATCH}/{begun['batch_id']}").json()
    assert statuses(found) == {task_id: "revoked"}
    assert secret not in api.edge.logged()
    argv = [sys.executable, "-m", "celerymeter", "audit", "verify", "--state-dir", str(api.state)]
    verified = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert verified.returncode == 0, verified.stdout
    assert len({row.instance for row in read_rows(api.state)}) == 2


def goes_on(control: Control, batch: str) -> bool:
    """Return whether it logs that it goes on with the batch."""
    return any(line.get("batch_id") == batch for line in control.lines)
