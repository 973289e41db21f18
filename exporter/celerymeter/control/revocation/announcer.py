"""Telling what became of ids: disk, audit trail, counter and feed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel

from celerymeter.control.audit.trail import AuditTrail
from celerymeter.control.feed.hub import Hub
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.revocation.models import Acknowledgements, Batch, Result, Status, totals
from celerymeter.control.revocation.store import Batches

PAGE: Final = 100
"""Ids a message of the feed."""


class TaskChange(BaseModel):
    """What an id has become."""

    task_id: str
    status: Status
    detail: str
    worker: str | None
    name: str | None
    state: str | None


class RevocationMessage(BaseModel):
    """Tasks of a batch changed state."""

    batch_id: str
    settled: bool
    successful: int
    failed: int
    unverified: int
    changes: list[TaskChange]


class Announcer:
    """Writes and says what changed; raises `StateError`, with nothing said, when the disk does not take it."""

    def __init__(self, batches: Batches, audit: AuditTrail, *, hub: Hub, metrics: ControlMetrics) -> None:
        self._batches = batches
        self._audit = audit
        self._hub = hub
        self._metrics = metrics

    def decided(self, batch: Batch, changed: Sequence[Result]) -> None:
        """The first answer; its row in the audit trail is the outcome, which the act writes."""
        self._batches.update(batch.id, changed, workers=batch.workers)
        self._say(batch, changed)

    def changed(self, batch: Batch, changed: Sequence[Result], *, workers: Acknowledgements | None = None) -> None:
        """What became known later."""
        if not changed:
            return
        self._batches.update(batch.id, changed, workers=workers)
        by_status: dict[str, list[str]] = defaultdict(list)
        for result in changed:
            by_status[result.status].append(result.task_id)
        for status, task_ids in by_status.items():
            self._audit.event(batch.intent, status, detail={"batch_id": batch.id, "task_ids": task_ids})
        self._say(batch, changed)

    def dropped(self, reason: str, count: int) -> None:
        """So many ids are held no longer."""
        self._metrics.held_dropped.labels(reason).inc(count)

    def holding(self, count: int) -> None:
        """So many ids are held."""
        self._metrics.held.set(count)

    def _say(self, batch: Batch, changed: Sequence[Result]) -> None:
        counted = totals(batch.results)
        for result in changed:
            self._metrics.revocations.labels(result.status).inc()
        for start in range(0, len(changed), PAGE):
            page = [change(result) for result in changed[start : start + PAGE]]
            message = RevocationMessage(batch_id=batch.id, settled=batch.settled, changes=page, **counted)
            self._hub.publish("revocation", message)


def change(result: Result) -> TaskChange:
    """A result as clients see it."""
    return TaskChange(
        task_id=result.task_id,
        status=result.status,
        detail=result.detail,
        worker=result.worker,
        name=result.name,
        state=result.state,
    )
