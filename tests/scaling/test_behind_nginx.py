"""Two replicas of the control API behind a real nginx: TLS, the feed, addresses, and a state that they share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from celery import Celery
from tests.apps.worker_app import make_app
from tests.control.serving import Control
from tests.control_live.stage import drain, messages, until
from tests.revocation.cluster import statuses
from tests.scaling.edge import Edge, replica, speaks_plain_http
from tests.workers import start_worker
from websockets.exceptions import InvalidStatus

from celerymeter.control.audit import reading
from celerymeter.control.testing import bearer, token
from celerymeter.control.tokens import Role
from celerymeter.demo.processes import free_ports, wait_until
from celerymeter.demo.servers import Redis

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

BATCH = "/tasks/batch"
PARKED = "parked"
"""A queue that nobody consumes before a test wants it."""


@dataclass
class Stage:
    """Both replicas, the proxy, and a worker."""

    app: Celery
    state: Path
    replicas: tuple[Control, Control]
    edge: Edge

    def park(self) -> str:
        """Send a task that waits; its id."""
        return str(self.app.send_task("tests.add", (1, 2), queue=PARKED).id)

    def serving(self) -> tuple[Control, Control]:
        """The replica to which nginx gives our requests, and the other."""
        address = self.edge.logs[0].read_text().split()[-1]
        first, second = self.replicas
        return (first, second) if address.endswith(f":{first.address[1]}") else (second, first)

    def addresses(self) -> set[str]:
        """That the audit trail knows."""
        return {row.address for row in reading.everything(self.state)}


def order(task_id: str) -> dict[str, Any]:
    """A batch revoke of one."""
    return {"task_ids": [task_id], "operation": "revoke", "parameters": {"reason": "a test"}}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Everything up; the tests follow each other, and the last one kills a replica."""
    folder = tmp_path_factory.mktemp("nginx")
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(folder / "redis")).up()
        app = make_app(redis.url)
        stack.callback(app.close)
        ports = tuple(free_ports(2))
        pair = [
            stack.enter_context(
                replica(folder / f"replica-{n}", n, state=folder / "state", broker=redis.url, port=ports[n - 1])
            )
            for n in (1, 2)
        ]
        with ThreadPoolExecutor(3) as pool:
            worker = pool.submit(start_worker, redis.url, folder, hostname="w1@test", queues=("fast",))
            first, second = pool.map(Control.up, pair)
        stack.callback(worker.result().kill)
        edge = stack.enter_context(Edge(folder / "nginx", (ports[0], ports[1]))).up()
        yield Stage(app, folder / "state", (first, second), edge)


def test_only_tls_and_only_with_a_token(stage: Stage) -> None:
    """The API's own refusals come through; what is not the API is not there."""
    assert "400" in speaks_plain_http(stage.edge.port)
    assert stage.edge.ask("GET", "/system/info", role=None).status_code == 200
    assert stage.edge.ask("GET", "/audit", role=None).status_code == 401
    assert stage.edge.ask("GET", "/audit", role=Role.VIEWER).status_code == 403
    assert stage.edge.ask("GET", "/audit").status_code == 200
    assert stage.edge.ask("GET", "/../metrics", role=None).status_code == 404


def test_the_address_is_the_clients_whatever_it_says(stage: Stage) -> None:
    """nginx appends whom it saw; what stands before that is a stranger's word."""
    lies = {"X-Forwarded-For": "198.51.100.7"}
    assert stage.edge.ask_from("127.0.0.9", "/audit", {**bearer(Role.VIEWER), **lies}) == 403
    wait_until(lambda: "127.0.0.9" in stage.addresses(), timeout=60, what="the refusal in the audit trail")
    assert "198.51.100.7" not in stage.addresses()


def test_the_feed_is_open_to_tokens_and_to_pages_of_this_host(stage: Stage) -> None:
    """wss, with a token as header or in the query, which is in no log; else it is closed."""
    with stage.edge.feed(bearing=bearer(Role.VIEWER), origin=f"https://localhost:{stage.edge.port}") as client:
        assert next(messages(client, timeout=60))["message_type"] == "connection_established"
    secret = token()
    with stage.edge.feed(f"?access_token={secret}") as client:
        assert next(messages(client, timeout=60))["message_type"] == "connection_established"
    with stage.edge.feed() as client:
        assert drain(client).code == 4401
    with pytest.raises(InvalidStatus, match="403"):
        stage.edge.feed(bearing=bearer(Role.VIEWER), origin="https://elsewhere.example.net")
    wait_until(lambda: "/monitoring/ws" in stage.edge.logged(), timeout=60)
    assert secret not in stage.edge.logged()


def test_a_batch_and_its_key_belong_to_both(stage: Stage) -> None:
    """Begun at the one, read at the other; the same key gives the stored answer there and acts no second time."""
    first, second = (one.url + BATCH for one in stage.replicas)
    headers = {**bearer(Role.OPERATOR), "Idempotency-Key": "once"}
    body = order(stage.park())
    begun = requests.post(first, json=body, headers=headers, timeout=30)
    assert begun.status_code == 200, begun.text
    batch = begun.json()["batch_id"]

    read = requests.get(f"{second}/{batch}", headers=bearer(Role.OPERATOR), timeout=30).json()
    assert statuses(read) == statuses(begun.json())
    replayed = requests.post(second, json=body, headers=headers, timeout=30)
    assert (replayed.json(), replayed.headers["Idempotency-Replayed"]) == (begun.json(), "true")
    other = requests.post(second, json=order("another"), headers=headers, timeout=30)
    assert other.status_code == 422
    intents = [row for row in reading.everything(stage.state) if row.kind == "intent" and row.action == "tasks.revoke"]
    assert len(intents) == 1


def test_the_other_takes_over_from_one_that_is_killed(stage: Stage) -> None:
    """Requests go on through nginx, the batch is followed to its end, and the audit trail holds."""
    task_id, secret = stage.park(), token()
    begun = stage.edge.ask("POST", BATCH, json=order(task_id)).json()
    assert statuses(begun) == {task_id: "flagged"}
    ours, other = stage.serving()

    ours.kill()
    with stage.edge.feed(f"?access_token={secret}") as client:
        codes = {stage.edge.ask("GET", f"{BATCH}/{begun['batch_id']}").status_code for _ in range(10)}
        assert codes == {200}
        wait_until(lambda: goes_on(other, begun["batch_id"]), timeout=90, what="the lease to end")
        stage.app.control.add_consumer(PARKED, destination=["w1@test"])
        until(client, lambda message: message["data"].get("batch_id") == begun["batch_id"])

    found = stage.edge.ask("GET", f"{BATCH}/{begun['batch_id']}").json()
    assert statuses(found) == {task_id: "revoked"}
    assert secret not in stage.edge.logged()
    argv = [sys.executable, "-m", "celerymeter", "audit", "verify", "--state-dir", str(stage.state)]
    verified = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert verified.returncode == 0, verified.stdout
    assert len({row.instance for row in reading.everything(stage.state)}) == 2


def goes_on(replica: Control, batch: str) -> bool:
    """Whether it says that it took the batch over."""
    return any(line.get("batch_id") == batch for line in replica.lines)
