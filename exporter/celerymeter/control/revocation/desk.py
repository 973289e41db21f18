"""Taking an order: each has a thread of its own, so that its answer comes in time whatever the broker does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import uuid4

from celerymeter.control.audit.trail import Actor, AuditTrail
from celerymeter.control.revocation.followup import Followup
from celerymeter.control.revocation.models import MAX_ID, Batch, Order, Result, by_status
from celerymeter.control.revocation.revoker import ACTING, LOOKING, Looked, Revoker
from celerymeter.control.revocation.store import Batches
from celerymeter.errors import BrokerUnavailable, RequestRefused

ANSWER: Final = 3.8
"""Seconds after which a client gets what is known by then."""
ACTION: Final = "tasks.revoke"

log = logging.getLogger(__name__)


class Desk:
    """Takes orders. Its methods raise `BrokerUnavailable`, `StateError` or `RequestRefused`."""

    def __init__(
        self,
        revoker: Revoker,
        followup: Followup,
        batches: Batches,
        *,
        audit: AuditTrail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._revoker = revoker
        self._followup = followup
        self._batches = batches
        self._audit = audit
        self._clock = clock

    def find(self, batch: str) -> Batch | None:
        """A batch as it stands."""
        return self._followup.find(batch)

    def preview(self, order: Order) -> Batch:
        """What an order would meet; nothing is sent and nothing kept."""
        looked = self.look(order, until=time.monotonic() + LOOKING)
        results = (*self._revoker.preview(order, looked), *_invalid(order))
        return Batch("", self._clock(), 0, order, results)

    def take(self, order: Order, actor: Actor, *, batch: str, wait: bool = True) -> Batch:
        """Act on an order; gives the batch as it stands after 3.8 s, or with ``wait`` false as soon as it is begun."""
        work = _Work(self, order, actor, batch=batch)
        threading.Thread(target=work.run, name="revoke", daemon=True).start()
        (work.ended if wait else work.begun).wait(ANSWER)
        if work.error is not None:
            raise work.error
        found = self._followup.find(batch) if work.cannot_be_stopped() else None
        if found is None:
            raise BrokerUnavailable("no answer in time")
        return found

    def look(self, order: Order, *, until: float) -> Looked:
        """Gather the evidence."""
        return self._revoker.look(order.task_ids, until=until)

    def begin(self, order: Order, actor: Actor, looked: Looked, *, batch: str) -> Batch:
        """Intent and batch, on disk before anything is sent."""
        intent = self._audit.begin(actor, ACTION, target=order.task_ids, reason=order.reason)
        seen = self._revoker.preview(replace(order, terminate=True), looked)
        pending = (replace(result, status="pending", detail="not decided yet") for result in seen)
        made = Batch(batch, self._clock(), intent, order, (*pending, *_invalid(order)))
        self._batches.add(made)
        self._followup.follow(made)
        return made

    def act(self, made: Batch, looked: Looked, *, until: float) -> None:
        """Act, and write the outcome; raises `RequestRefused` when no worker answers."""
        detail: dict[str, object] = {"batch_id": made.id}
        try:
            acted = self._revoker.act(made.order, looked, until=until)
        except BaseException as error:
            self._followup.broke_off(made.id, looked.expected)
            self._audit.finish(made.intent, "failed", detail={**detail, "error": type(error).__name__})
            raise
        decided = self._followup.decide(made.id, acted)
        detail |= {"statuses": by_status(decided.results), "missing": sorted(acted.workers.missing)}
        unheard = acted.unheard and not looked.answering
        self._audit.finish(made.intent, "no_answer" if unheard else "ok", detail=detail)
        if unheard:
            raise RequestRefused(
                "no_worker_answered",
                "no worker answered in time; the revoke may still apply, and is followed",
                members={"batch_id": made.id},
            )

    def refuse(self, order: Order, actor: Actor, code: str) -> None:
        """Nothing was sent; the audit trail says that it was asked for."""
        intent = self._audit.begin(actor, ACTION, target=order.task_ids, reason=order.reason)
        self._audit.finish(intent, "refused", detail={"error": code})


class _Work:
    """One order under way."""

    def __init__(self, desk: Desk, order: Order, actor: Actor, *, batch: str) -> None:
        self._desk = desk
        self._order = order
        self._actor = actor
        self._batch = batch
        self._lock = threading.Lock()
        self._given_up = False
        self._acting = False
        self.begun, self.ended = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        """To its end, whoever waits for it."""
        came = time.monotonic()
        try:
            self._run(came)
        except RequestRefused as error:
            self.error = error
            self._refused(error.code)
        except BrokerUnavailable as error:
            self.error = self._with_batch(error)
            self._refused("broker_unavailable")
        except Exception as error:
            self.error = error
            log.exception("revoke: unexpected error")
        finally:
            self.begun.set()
            self.ended.set()

    def cannot_be_stopped(self) -> bool:
        """Whether it acts already; else it never will."""
        with self._lock:
            self._given_up = not self._acting
            return self._acting

    def _run(self, came: float) -> None:
        looked = self._desk.look(self._order, until=came + LOOKING)
        with self._lock:
            if self._given_up:
                raise BrokerUnavailable("no answer in time")
            made = self._desk.begin(self._order, self._actor, looked, batch=self._batch)
            self._acting = True
        self.begun.set()
        self._desk.act(made, looked, until=came + ACTING)

    def _refused(self, code: str) -> None:
        if not self._acting:
            self._desk.refuse(self._order, self._actor, code)

    def _with_batch(self, error: BrokerUnavailable) -> Exception:
        if not self._acting:
            return error
        log.warning("revoke: %s", error)
        return RequestRefused(
            "broker_unavailable",
            "the broker is away; the revoke is followed and sent again when it is back",
            retry_after=5.0,
            members={"batch_id": self._batch},
        )


def new_id() -> str:
    """An id for a batch."""
    return uuid4().hex


def _invalid(order: Order) -> tuple[Result, ...]:
    return tuple(
        Result(task_id, "invalid", f"not an id: 1 to {MAX_ID} visible characters are wanted")
        for task_id in order.invalid
    )
