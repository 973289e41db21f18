"""One control API without its threads: disk, audit trail, counter and feed are real, the worker is not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.control.access import control_settings
from tests.fake_remote_control import FakeRemoteControl, Wait, add_reply

from celerymeter.control.audit.offline import read_rows
from celerymeter.control.audit.trail import Actor, AuditQuery
from celerymeter.control.feed.hub import Mailbox
from celerymeter.control.parts import Parts, build
from celerymeter.control.revocation.models import Batch
from celerymeter.control.revocation.service import revoke_request
from celerymeter.control.revocation.workers import Workers
from celerymeter.control.settings import ControlSettings
from celerymeter.inspect_replies import Replies
from celerymeter.model import Event
from celerymeter.remote_control import Command

WORKER = "a@t"


@dataclass
class FakeRemote(FakeRemoteControl):
    """One worker that holds nothing and acknowledges everything.

    ``on_inspect`` is called while it is asked what it holds, ``on_flag`` at the next revoke only. While ``silent`` it
    does not reply.
    """

    on_inspect: Callable[[], object] = lambda: None
    on_flag: Callable[[], object] = lambda: None
    silent: bool = False

    def deliver(self, commands: Sequence[Command], replies: Replies, wait: Wait) -> None:
        """Reply to everything."""
        if commands[0].method == "revoke":
            on_flag, self.on_flag = self.on_flag, lambda: None
            on_flag()
        else:
            self.on_inspect()
        for command in () if self.silent else commands:
            empty: object = {} if command.method in ("stats", "query_task") else []
            add_reply(replies, command, WORKER, {"ok": ""} if command.method == "revoke" else empty)


class ControlProcess:
    """One process on a state directory; `run_threads` does what its threads would do."""

    def __init__(self, folder: Path, settings: ControlSettings | None = None) -> None:
        self.folder = folder
        self.remote = FakeRemote()
        self.parts: Parts = build(settings or control_settings(), folder, workers=Workers([self.remote] * 4))
        self.mailbox: Mailbox = self.parts.monitoring.hub.join(wake=lambda: None, abort=lambda: None)[0]

    def send_event(self, kind: str, task_id: str | None = None, *, at: float) -> None:
        """Have an event come in."""
        event = Event(type=kind, hostname=WORKER, timestamp=at, uuid=task_id, name="tests.add" if task_id else None)
        self.parts.events.events([event], at)

    def handle_event(self, kind: str, task_id: str | None = None, *, at: float) -> None:
        """Have an event come in, and be applied."""
        self.send_event(kind, task_id, at=at)
        self.run_threads()

    def run_threads(self) -> None:
        """Do what both threads have to do now."""
        self.parts.followup.update()
        self.parts.followup.resend()

    def begin(self, *task_ids: str, batch: str = "b1", until: float = float("inf")) -> Callable[[], None]:
        """Collect evidence and write the intent; return the act itself."""
        service, request = self.parts.revocations, revoke_request(task_ids)
        evidence = service.collect(request, until=float("inf"))
        begun = service.begin(request, Actor("somebody"), evidence, batch_id=batch)
        return lambda: service.act(begun, evidence, until=until)

    def find(self, batch: str = "b1") -> Batch:
        """Return a batch as it stands."""
        found = self.parts.revocations.find(batch)
        assert found is not None
        return found

    def statuses(self, batch: str = "b1") -> Counter[str]:
        """Return how many ids of a batch have which status."""
        return Counter(result.status for result in self.find(batch).results)

    def audited(self, kind: str) -> list[tuple[str, Any]]:
        """Return outcome and detail of the trail's rows of a kind."""
        rows = read_rows(self.folder, AuditQuery(action="tasks.revoke"), last=1000)
        return [(row.outcome, json.loads(row.detail)) for row in rows if row.kind == kind]

    def fed(self) -> list[tuple[str, str]]:
        """Return task and status of every change that the feed sent since the last call."""
        messages = [json.loads(message.text) for message in iter(self.mailbox.take, None)]
        changes = [message["data"]["changes"] for message in messages if message["message_type"] == "revocation"]
        return [(change["task_id"], change["status"]) for page in changes for change in page]

    def counted(self, status: str) -> float:
        """Return the counter's value."""
        return self.sample("celerymeter_revocations_total", outcome=status) or 0.0

    def sample(self, name: str, **labels: str) -> float | None:
        """Return a series of the API's own metrics."""
        return self.parts.metrics.registry.get_sample_value(name, labels)

    def close(self) -> None:
        """Close its files."""
        self.parts.store.close()
