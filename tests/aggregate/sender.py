"""An aggregating worker without a broker: its messages go through JSON, as on the wire, to an exporter's tracker."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
from tests.tracking.cluster import WORKER, Cluster

from celerymeter.aggregate.member import Member, Options
from celerymeter.model import Event

decode = msgspec.json.Decoder(Event).decode


class Sender:
    """Counts the steps that a test lets happen, with the clock of a `Cluster`."""

    def __init__(self, cluster: Cluster, options: Options | None = None, hostname: str = WORKER) -> None:
        self.cluster = cluster
        self.hostname = hostname
        app = SimpleNamespace(tasks={}, amqp=SimpleNamespace(queues=SimpleNamespace(consume_from={})))
        worker = SimpleNamespace(app=app, consumer=None, options={})
        self.member = Member(worker, options or Options(), clock=lambda: cluster.now, steady=lambda: cluster.now)
        self.totals = self.member.totals
        self.began = cluster.now
        self._active: set[str] = set()

    def receive(self, uuid: str, name: str = "add", queue: str = "celery", **fields: Any) -> None:
        """A task arrives; ``sent`` and ``eta`` are UTC seconds."""
        run = self.totals.received(uuid, name, queue, now=self.cluster.now, retries=fields.get("retries", 0))
        run.sent, run.eta = fields.get("sent"), fields.get("eta")

    def start(self, uuid: str) -> None:
        """It begins."""
        self._active.add(uuid)
        self.totals.started(uuid, self.cluster.now)

    def end(self, uuid: str, outcome: str = "succeeded", **fields: Any) -> None:
        """It ends, or something else happens to it."""
        self._active.discard(uuid)
        getattr(self.totals, outcome)(uuid, fields, self.cluster.now)

    def run(
        self, uuid: str, name: str = "add", queue: str = "celery", outcome: str = "succeeded", **fields: Any
    ) -> None:
        """A whole run."""
        self.receive(uuid, name, queue)
        self.start(uuid)
        self.end(uuid, outcome, **fields)

    def message(self, *, full: bool = False, pid: int = 1) -> Event:
        """The next message, as the exporter decodes it."""
        if full:
            self.member.send_all_next()
        totals = {**self.member.message(), "age": self.cluster.now - self.began}
        totals |= {"processed": self.totals.started_total, "begun": self.totals.started_total}
        fields = {"type": "celerymeter-totals", "hostname": self.hostname, "pid": pid, "timestamp": self.cluster.now}
        return decode(json.dumps({**fields, "totals": totals}).encode())

    def send(self, *, full: bool = False) -> None:
        """A heartbeat, then the totals, which arrive and are added up."""
        self.cluster.processed[self.hostname] = self.totals.started_total
        self.cluster.heartbeat(self.hostname)
        self.deliver(self.message(full=full))

    def deliver(self, message: Event) -> None:
        """A message arrives and is added up."""
        self.cluster.tracker.apply([message], self.cluster.now)
        self.cluster.tracker.totals.add_up(everything=True)
