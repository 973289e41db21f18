"""Ten megabytes of hostile events a second: the API stays small and quick, and knows the worker that is real."""

from __future__ import annotations

import base64
import json
import random
import time
import uuid
from pathlib import Path

import pytest
import redis
import requests
from tests.control.access import bearer
from tests.control.serving import Control
from tests.workers import start_worker

from celerymeter.control.tokens import Role
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SECONDS = 60.0
BYTES_PER_SECOND = 10e6
MOST_MEMORY = 256.0
"""MB."""
KINDS = (
    "worker-heartbeat",
    "worker-online",
    "task-received",
    "task-started",
    "task-sent",
    "task-failed",
    "task-progress",
)
ENVELOPE = {
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {},
    "properties": {"body_encoding": "base64", "delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"}},
}


def event(rng: random.Random, length: int) -> dict[str, object]:
    """An event of a worker, a task and a queue that nobody has."""
    number, pad = rng.getrandbits(60), rng.choice("xé\U0001f600")
    made: dict[str, object] = {"type": rng.choice(KINDS), "timestamp": time.time(), "clock": number % 2**40, "pid": 7}
    names = ("hostname", "name", "queue", "routing_key", "sw_ver")
    return made | {"uuid": str(uuid.UUID(int=number)), **{name: f"{name}{number}".ljust(length, pad) for name in names}}


def message(rng: random.Random, length: int) -> bytes:
    """A message of 24 events, as Celery publishes them."""
    body = json.dumps([event(rng, length) for _ in range(24)], ensure_ascii=False).encode()
    return json.dumps({"body": base64.b64encode(body).decode(), **ENVELOPE}).encode()


def memory(control: Control) -> float:
    """Return the MB that the serving process has."""
    child = Path(f"/proc/{control.pid}/task/{control.pid}/children").read_text().split()[0]
    status = Path(f"/proc/{child}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def workers(control: Control) -> list[str]:
    """Return the workers that the API knows."""
    return [each["hostname"] for each in control.get("/monitoring/status").json()["workers"]]


@pytest.mark.parametrize("length", [10, 500], ids=["many", "long"])
def test_a_flood_of_events_changes_nothing(tmp_path: Path, length: int) -> None:
    """Memory, time to answer, the real worker, and what a revoke says."""
    rng = random.Random(length)
    with (
        Redis(tmp_path / "redis") as server,
        Control(tmp_path, ("--broker-url", server.up().url)) as control,
        start_worker(server.url, tmp_path),
    ):
        control.up()
        wait_until(lambda: workers(control), timeout=60)
        real = workers(control)
        messages = [message(rng, length) for _ in range(4000 if length < 100 else 400)]
        client, begun, sent, looked = redis.Redis.from_url(server.url), time.monotonic(), 0, 0.0
        while time.monotonic() - begun < SECONDS:
            made = message(rng, length) if rng.random() < 0.2 else rng.choice(messages)
            client.publish("/0.celeryev/task.multi", made)
            sent += len(made)
            time.sleep(max(0.0, begun + sent / BYTES_PER_SECOND - time.monotonic()))
            if time.monotonic() - looked > 5:
                looked = time.monotonic()
                assert requests.get(control.info, timeout=10).elapsed.total_seconds() < 1
                assert memory(control) < MOST_MEMORY
        assert sent > SECONDS * BYTES_PER_SECOND / 2
        assert set(real) <= set(workers(control))
        assert len(workers(control)) < 1200
        body = {"task_ids": ["never-was"], "operation": "revoke"}
        answer = requests.post(f"{control.url}/tasks/batch", json=body, headers=bearer(Role.ADMIN), timeout=10)
        assert answer.status_code == 200
        assert set(real) <= set(answer.json()["workers"]["acknowledged"])
        assert len(answer.content) < 100_000
        client.close()
