"""Real workers, real brokers and the control API, for batch revokes that are answered for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from celery import Celery
from tests.apps import worker_app
from tests.control.serving import Control
from tests.workers import start_worker

from celerymeter.control.access import Role
from celerymeter.control.testing import bearer
from celerymeter.demo.processes import Process, wait_until
from celerymeter.demo.servers import Redis

BATCH = "/tasks/batch"


@dataclass
class Stage:
    """A broker with workers and the control API on it; ``backend`` holds results."""

    folder: Path
    broker_url: str
    backend_url: str
    stack: ExitStack
    app: Celery
    control: Control

    def worker(self, hostname: str, *, queues: Sequence[str] | None = None, **options: Any) -> Process:
        """Start a worker on a queue of its own name."""
        env = {worker_app.BACKEND: self.backend_url}
        queues = [hostname.partition("@")[0]] if queues is None else queues
        started = start_worker(self.broker_url, self.folder, hostname=hostname, queues=queues, env=env, **options)
        return self.stack.enter_context(started)

    def send(self, name: str, *args: object, queue: str, **options: Any) -> str:
        """Send a task and give its id."""
        return str(self.app.send_task(name, args, queue=queue, **options).id)

    def state(self, task_id: str) -> str:
        """What the result backend says."""
        return str(self.app.AsyncResult(task_id).state)

    def post(self, *task_ids: str, role: Role = Role.ADMIN, headers: Any = None, **parameters: object) -> Any:
        """Ask for a batch revoke; the raw response."""
        body = {"task_ids": list(task_ids), "operation": "revoke", "parameters": parameters}
        sent = {**bearer(role), **(headers or {})}
        return requests.post(self.control.url + BATCH, json=body, headers=sent, timeout=5)

    def revoke(self, *task_ids: str, **parameters: Any) -> dict[str, Any]:
        """Ask for a batch revoke that is answered with 200."""
        response = self.post(*task_ids, **parameters)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def follow(self, batch_id: str) -> dict[str, Any]:
        """The batch as it stands."""
        return dict(self.control.get(f"{BATCH}/{batch_id}").json())

    def becomes(self, batch_id: str, status: str, *, timeout: float = 20.0) -> dict[str, Any]:
        """Wait until every id of the batch has this status."""
        wait_until(
            lambda: set(statuses(self.follow(batch_id)).values()) == {status},
            timeout=timeout,
            interval=0.2,
            what=f"every id of the batch is {status}",
        )
        return self.follow(batch_id)

    def runs(self, task_id: str) -> None:
        """Wait until a worker runs it."""
        inspect = self.app.control.inspect(timeout=0.5)
        wait_until(lambda: _is_active(inspect.active() or {}, task_id), interval=0.1, what="the task runs")


def statuses(reply: dict[str, Any]) -> dict[str, str]:
    """By task id."""
    return {result["task_id"]: result["status"] for result in reply["results"]}


def only(reply: dict[str, Any]) -> dict[str, Any]:
    """The one result."""
    (result,) = reply["results"]
    return dict(result)


def _is_active(active: dict[str, list[dict[str, Any]]], task_id: str) -> bool:
    return any(task["id"] == task_id for tasks in active.values() for task in tasks)


@contextmanager
def staged(folder: Path, broker_url: str, backend_url: str, options: Sequence[str] = ()) -> Iterator[Stage]:
    """The control API on a broker, subscribed to its events."""
    with ExitStack() as stack:
        app = worker_app.make_app(broker_url, backend=backend_url)
        stack.callback(app.close)
        words = ("--broker-url", broker_url, "--result-backend-url", backend_url)
        control = stack.enter_context(Control(folder, (*words, *options))).up()
        yield Stage(folder, broker_url, backend_url, stack, app, control)


@contextmanager
def staged_on_redis(folder: Path, options: Sequence[str] = ()) -> Iterator[Stage]:
    """With a Redis for both."""
    with Redis(folder / "redis") as redis, staged(folder, redis.up().url, f"{redis.url[:-1]}1", options) as stage:
        yield stage
