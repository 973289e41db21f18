"""A look-up has a bounded cost: time of its client and of a worker's control loop, and reads of Redis."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from tests.lookup.watching import Lookups
from tests.revocation.cluster import TIMEOUT, Cluster, running_cluster
from tests.workers import ROOT

from celerymeter.demo.processes import Process, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

CROWD = 50
WAITING = 10_000
LOOKS = 100
MILLION = 1_000_000
PUSH = """
for i = 1, tonumber(ARGV[1]) do
  redis.call('LPUSH', KEYS[1], '{"properties": {"correlation_id": "other-' .. i .. '"}}')
end
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A control API, and no worker yet."""
    with running_cluster(tmp_path) as cluster:
        yield cluster


def message(task_id: str) -> str:
    """Return a message of usual size as kombu stores it."""
    headers = {"id": task_id, "task": "shop.pay", "argsrepr": "x" * 600}
    properties = {"correlation_id": task_id, "delivery_tag": uuid4().hex, "delivery_mode": 2, "priority": 0}
    return json.dumps(
        {"body": "x" * 400, "content-type": "application/json", "headers": headers, "properties": properties}
    )


def crowd(cluster: Cluster, count: int) -> Process:
    """Start so many workers that answer as real ones do."""
    argv = [sys.executable, "-m", "tests.lookup.crowd", cluster.broker.url, str(count)]
    started = Process("crowd", argv, log=cluster.folder / "crowd.log", cwd=ROOT)
    return cluster.stack.enter_context(started.start(ready=lambda: "ready" in started.tail(10)))


def cpu_seconds(pid: int, *, children: bool = False) -> float:
    """Return the processor time that a process has used, or it and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if children else []
    return own + sum(cpu_seconds(int(child)) for child in pids)


def test_a_look_up_among_many_workers_and_messages_is_quick(cluster: Cluster) -> None:
    """50 workers answer and 10,000 messages wait: positions are exact, and cost little; wall times are printed."""
    workers = crowd(cluster, CROWD)
    ids = [uuid4().hex for _ in range(WAITING)]
    client = redis.Redis.from_url(cluster.broker.url)
    client.lpush("busy", *(message(task_id) for task_id in ids))
    lookups = Lookups(cluster.control)
    wait_until(lambda: all_answered(lookups.look(ids[0])), interval=1.0)
    took = []
    processes = {"API": cluster.control.pid, "Redis": cluster.broker.pid, "all workers": workers.pid}
    before = {name: cpu_seconds(pid, children=True) for name, pid in processes.items()}
    for number in range(0, WAITING, WAITING // LOOKS):
        began = time.perf_counter()
        reply = lookups.look(ids[number])
        took.append(time.perf_counter() - began)
        assert reply["position"] == {"number": number + 1, "total": WAITING, "priority": 0}
        assert all_answered(reply), "a wait that ends by silence takes 0.8 s longer"
        time.sleep(0.05)
    used = {name: (cpu_seconds(pid, children=True) - before[name]) / LOOKS for name, pid in processes.items()}
    p50, p95 = statistics.median(took), statistics.quantiles(took, n=20)[-1]
    print(f"look-up: p50 {p50:.3f} s, p95 {p95:.3f} s, max {max(took):.3f} s; load {os.getloadavg()[0]:.1f}")
    print(f"processor time of a look-up: {', '.join(f'{name} {spent:.3f} s' for name, spent in used.items())}")
    assert max(used["API"], used["Redis"]) < 0.1


def test_a_hundred_look_ups_at_once_leave_a_worker_its_time(cluster: Cluster) -> None:
    """Of different tasks, again and again for ten seconds: less than 5 % of a worker's main process."""
    worker = cluster.worker("real@t", concurrency=2)
    lookups = Lookups(cluster.control)
    for _ in range(20):
        cluster.send("tests.hold", str(cluster.folder), False, queue="real")
    lookups.becomes(cluster.send("tests.add", 1, 2, queue="real"), "queued", before=("reserved",))
    pid = worker.pid
    assert pid is not None
    seconds = 10.0
    idle = cpu_seconds(pid)
    time.sleep(seconds)
    idle = cpu_seconds(pid) - idle
    used, began, count = cpu_seconds(pid), time.monotonic(), 0
    with ThreadPoolExecutor(100) as pool:
        while time.monotonic() - began < seconds:
            replies = list(pool.map(look_once, [lookups] * 100))
            count += len(replies)
            assert set(replies) <= {"unknown", "busy"}
    took = time.monotonic() - began
    share = (cpu_seconds(pid) - used - idle * took / seconds) / took
    print(f"{count} look-ups in {took:.1f} s cost a worker {share:.1%} of a processor (idle: {idle / seconds:.1%})")
    (cluster.folder / "go").touch()
    assert share < 0.05


def all_answered(reply: dict[str, Any]) -> bool:
    """Return True when the API knew which workers to wait for, and each answered."""
    silent = [source["reason"] for source in reply["unreachable"] if source["source"] == "workers"]
    return not silent and len(reply["consumers"]) == CROWD


def look_once(lookups: Lookups) -> str:
    """Look for a task that is nowhere; "busy" when the API refuses more at this time."""
    import requests
    from tests.control.access import token

    headers = {"Authorization": f"Bearer {token(subject=uuid4().hex)}"}
    response = requests.get(f"{lookups.control.url}/tasks/{uuid4().hex}", headers=headers, timeout=TIMEOUT)
    assert response.status_code in (200, 429), response.text
    return str(response.json()["verdict"]) if response.ok else "busy"


def test_a_million_messages_are_not_read(cluster: Cluster) -> None:
    """A task in the middle is not found, and the answer says why; those at both ends are, and it takes no longer."""
    cluster.worker("idle@t")
    client = redis.Redis.from_url(cluster.broker.url, socket_timeout=TIMEOUT)
    lookups = Lookups(cluster.control)
    first = cluster.send("tests.add", 1, 2, queue="huge")
    client.eval(PUSH, 1, "huge", MILLION // 2)
    middle = cluster.send("tests.add", 1, 2, queue="huge")
    client.eval(PUSH, 1, "huge", MILLION // 2)
    last = cluster.send("tests.add", 1, 2, queue="huge")
    total = MILLION + 3
    assert lookups.becomes(first, "queued")["position"]["number"] == 1
    assert lookups.becomes(last, "queued")["position"] == {"number": total, "total": total, "priority": 0}
    began = time.perf_counter()
    reply = lookups.look(middle)
    assert time.perf_counter() - began < 1.5
    assert reply["verdict"] == "unknown"
    assert "not every waiting message could be read (1000003 wait)" in reply["sentence"]["en"]
    assert any("only 10,000 messages were read" in source["says"] for source in reply["evidence"])
