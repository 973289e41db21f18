"""The follow-up on disk, trail, counter and feed that are real, with workers whose answers a test sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celerymeter.control.audit import reading
from celerymeter.control.audit.reading import Filter
from celerymeter.control.audit.trail import Actor
from celerymeter.control.feed.hub import Mailbox
from celerymeter.control.parts import Parts, build
from celerymeter.control.revocation.models import Acknowledgements, Batch, Signal, ordered
from celerymeter.control.revocation.replies import Replies
from celerymeter.control.revocation.workers import Told
from celerymeter.control.settings import ControlSettings
from celerymeter.control.testing import control_settings
from celerymeter.model import Event

WORKER = "a@t"


@dataclass
class Workers:
    """One worker that holds nothing and acknowledges everything. ``asked`` happens while it is asked; ``meanwhile``
    once, while it is told, and then there is ``time`` for so many ids only.
    """

    asked: Callable[[], object] = lambda: None
    meanwhile: Callable[[], object] = lambda: None
    time: int | None = None

    def look(self, task_ids: Sequence[str], *, expected: frozenset[str], until: float) -> Replies:
        """It is alive."""
        self.asked()
        return _alive()

    def recheck(self, task_ids: Sequence[str], *, expected: frozenset[str], until: float) -> Replies:
        """It still holds nothing."""
        return _alive()

    def flag(
        self, task_ids: Sequence[str], *, expected: frozenset[str], until: float, only: Collection[str] | None = None
    ) -> Told:
        """It takes them."""
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        everybody = frozenset({WORKER})
        within, self.time = task_ids[: self.time], None
        acknowledged = dict.fromkeys(within, Acknowledgements(everybody, everybody))
        return Told(expected, acknowledged, complete=len(within) == len(task_ids))

    def kill(self, task_ids: Sequence[str], *, worker: str, signal: Signal, until: float) -> Replies:
        """It has nothing to end."""
        return _alive()


def _alive() -> Replies:
    replies = Replies()
    replies.receive("stats", json.dumps({WORKER: {}}))
    replies.receive("query_task", json.dumps({WORKER: {}}))
    return replies


class Room:
    """All parts of one process on a state directory, without their threads: `turn` does what they would do."""

    def __init__(self, folder: Path, settings: ControlSettings | None = None) -> None:
        settings = settings or control_settings()
        self.folder = folder
        self.workers = Workers()
        self.parts: Parts = build(settings, folder, workers=self.workers)
        hub = self.parts.monitoring.hub
        self.mailbox: Mailbox = hub.join(wake=lambda: None, abort=lambda: None)[0]

    def listen(self, kind: str, task_id: str | None = None, *, at: float) -> None:
        """An event comes in."""
        event = Event(type=kind, hostname=WORKER, timestamp=at, uuid=task_id, name="tests.add" if task_id else None)
        self.parts.events.events([event], at)

    def hear(self, kind: str, task_id: str | None = None, *, at: float) -> None:
        """An event comes in, and is taken."""
        self.listen(kind, task_id, at=at)
        self.turn()

    def turn(self) -> None:
        """Both threads have done what is due."""
        self.parts.followup.keep()
        self.parts.followup.remind()

    def begin(self, *task_ids: str, batch: str = "b1") -> Callable[[], None]:
        """Look, and write the intent; gives the act itself."""
        desk, order, until = self.parts.revocations, ordered(task_ids), float("inf")
        looked = desk.look(order, until=until)
        made = desk.begin(order, Actor("somebody"), looked, batch=batch)
        return lambda: desk.act(made, looked, until=until)

    def find(self, batch: str = "b1") -> Batch:
        """A batch as it stands."""
        found = self.parts.revocations.find(batch)
        assert found is not None
        return found

    def statuses(self, batch: str = "b1") -> Counter[str]:
        """How many ids of a batch have which status."""
        return Counter(result.status for result in self.find(batch).results)

    def audited(self, kind: str) -> list[tuple[str, Any]]:
        """Outcome and detail of the trail's rows of a kind."""
        rows = reading.everything(self.folder, Filter(action="tasks.revoke"), last=1000)
        return [(row.outcome, json.loads(row.detail)) for row in rows if row.kind == kind]

    def fed(self) -> list[tuple[str, str]]:
        """Task and status of every change that the feed told since the last time."""
        messages = [json.loads(message.text) for message in iter(self.mailbox.take, None)]
        changes = [message["data"]["changes"] for message in messages if message["message_type"] == "revocation"]
        return [(change["task_id"], change["status"]) for page in changes for change in page]

    def counted(self, status: str) -> float:
        """The counter's value."""
        labels = {"outcome": status}
        return self.parts.metrics.registry.get_sample_value("celerymeter_revocations_total", labels) or 0.0

    def sample(self, name: str, **labels: str) -> float | None:
        """A series of the API's own metrics."""
        return self.parts.metrics.registry.get_sample_value(name, labels)

    def close(self) -> None:
        """Its files are somebody else's now."""
        self.parts.store.close()
