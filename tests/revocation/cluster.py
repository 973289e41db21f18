"""Real workers, real brokers and the control API, for batch revokes that are answered for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from celery import Celery
from tests.apps import worker_app
from tests.control.access import bearer
from tests.control.serving import Control
from tests.revocation.releases import REDIS, Setting
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.control.audit.offline import read_rows
from celerymeter.control.audit.trail import AuditQuery
from celerymeter.control.tokens import Role
from celerymeter.demo.processes import Process, wait_until
from celerymeter.demo.servers import Redis

BATCH = "/tasks/batch"
TIMEOUT = 180.0
"""Seconds: many times what anything here takes on a machine that is not busy."""
PERSISTENT = ("--appendonly", "yes")


@dataclass
class Cluster:
    """A broker with workers, and the control API."""

    folder: Path
    broker: Redis | RabbitMQ
    backend_url: str
    stack: ExitStack
    app: Celery
    control: Control
    env: Mapping[str, str]
    held: list[Held] = field(default_factory=list)
    aggregate: bool = False
    options: Sequence[str] = ()
    """Further words of the command line of every worker."""

    def worker(self, hostname: str, *, queues: Sequence[str] | None = None, **options: Any) -> Process:
        """Start a worker on a queue of its own name."""
        env = {worker_app.BACKEND: self.backend_url, **self.env, **options.pop("env", {})}
        queues = [hostname.partition("@")[0]] if queues is None else queues
        options["options"] = (*self.options, *options.get("options", ()))
        if self.aggregate:
            options = {"aggregate": {}, **options}
        started = start_worker(self.broker.url, self.folder, hostname=hostname, queues=queues, env=env, **options)
        return self.stack.enter_context(started)

    def send(self, name: str, *args: object, queue: str, **options: Any) -> str:
        """Send a task and give its id."""
        return str(self.app.send_task(name, args, queue=queue, **options).id)

    def hold(self, queue: str, *, unmoved: bool = False, known: str = "running") -> Held:
        """A task that runs until it is let go; ``known`` is what the API says of it by then."""
        folder = self.folder / f"held-{len(self.held)}"
        folder.mkdir()
        held = Held(self.send("tests.hold", str(folder), unmoved, queue=queue), folder)
        self.held.append(held)
        wait_until((folder / "began").exists, what="the task runs")
        self.knows(held.id, known)
        return held

    def let_go(self) -> None:
        """Keep no worker from ending."""
        for held in self.held:
            held.let_go()

    def state(self, task_id: str) -> str:
        """Return the state of a task in the result backend."""
        return str(self.app.AsyncResult(task_id).state)

    def ends(self, task_id: str) -> str:
        """Wait until a task has ended, and give its state."""
        self.app.AsyncResult(task_id).get(timeout=TIMEOUT, propagate=False)
        return self.state(task_id)

    def post(self, *task_ids: str, role: Role = Role.ADMIN, headers: Any = None, **parameters: object) -> Any:
        """Ask for a batch revoke; the raw response."""
        body = {"task_ids": list(task_ids), "operation": "revoke", "parameters": parameters}
        sent = {**bearer(role), **(headers or {})}
        return requests.post(self.control.url + BATCH, json=body, headers=sent, timeout=TIMEOUT)

    def revoke(self, *task_ids: str, **parameters: Any) -> dict[str, Any]:
        """Ask for a batch revoke that is answered with 200."""
        response = self.post(*task_ids, **parameters)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def knows(self, task_id: str, what: str = "waiting") -> None:
        """Wait until the API knows where a task is."""
        wait_until(
            lambda: only(self.revoke(task_id, dry_run=True))["detail"].startswith(what),
            interval=0.1,
            what=f"{what}, by a dry run",
        )

    def follow(self, batch_id: str) -> dict[str, Any]:
        """The batch as it stands."""
        return dict(self.control.get(f"{BATCH}/{batch_id}").json())

    def becomes(self, reply: dict[str, Any], status: str | dict[str, str]) -> dict[str, Any]:
        """Wait until the batch's ids have this status, or each its own."""
        wanted = dict.fromkeys(statuses(reply), status) if isinstance(status, str) else status
        seen = [reply]

        def there() -> bool:
            seen.append(self.follow(reply["batch_id"]))
            return statuses(seen[-1]) == wanted

        with suppress(TimeoutError):
            wait_until(there, interval=0.1)
        assert statuses(seen[-1]) == wanted
        return seen[-1]

    def outcomes(self, kind: str) -> list[str]:
        """The audit trail's argv about revokes in rows of a kind, in order."""
        rows = read_rows(self.control.state, AuditQuery(action="tasks.revoke"), last=200)
        return [row.outcome for row in rows if row.kind == kind]

    def sample(self, series: str) -> float:
        """A series of the API's own metrics; 0 when it is not there."""
        page = requests.get(self.control.metrics_url, timeout=TIMEOUT).text
        values = [line.rpartition(" ")[2] for line in page.splitlines() if line.rpartition(" ")[0] == series]
        return float(values[0]) if values else 0.0


@dataclass(frozen=True)
class Held:
    """A task that runs until `let_go`."""

    id: str
    folder: Path

    def let_go(self) -> None:
        """It may succeed now."""
        (self.folder / "go").touch()


def statuses(reply: dict[str, Any]) -> dict[str, str]:
    """By task id."""
    return {result["task_id"]: result["status"] for result in reply["results"]}


def only(reply: dict[str, Any]) -> dict[str, Any]:
    """The one result."""
    (result,) = reply["results"]
    return dict(result)


@contextmanager
def running_cluster(folder: Path, setting: Setting = REDIS, options: Sequence[str] = ()) -> Iterator[Cluster]:
    """The control API on a broker, subscribed to its events; no worker yet."""
    env = setting.environment()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(folder / "redis", options=PERSISTENT)).up()
        broker = redis if setting.broker == "redis" else stack.enter_context(RabbitMQ(folder / "rabbit")).up()
        backend_url = f"{redis.url[:-1]}1"
        app = worker_app.make_app(broker.url, backend=backend_url)
        stack.callback(app.close)
        argv = ("--broker-url", broker.url, "--result-backend-url", backend_url, *options)
        control = stack.enter_context(Control(folder, argv, env=env)).up()
        cluster = Cluster(folder, broker, backend_url, stack, app, control, env, aggregate=setting.aggregate)
        stack.callback(cluster.let_go)
        yield cluster
