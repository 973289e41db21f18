"""``/tasks/*``: batch revoke and its follow-up."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Literal

from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field

from celerymeter.control.auth import current_actor, current_identity, require_role
from celerymeter.control.revocation.announcer import TaskChange, change
from celerymeter.control.revocation.desk import Desk, new_id
from celerymeter.control.revocation.idempotency import Asked, Keys
from celerymeter.control.revocation.models import (
    MAX_IDS,
    Acknowledgements,
    Batch,
    Order,
    Signal,
    ordered,
    summary,
    totals,
)
from celerymeter.control.routing import Body, ControlBlueprint, Permission, answer, utc
from celerymeter.control.tokens import Role
from celerymeter.errors import BrokerUnavailable, RequestRefused

PATH = "/tasks/batch"


class RevokeParameters(Body):
    """How to revoke; `terminate` needs the role admin."""

    terminate: bool = Field(default=False, description="End the process of a task that runs (prefork pools)")
    signal: Signal = "SIGTERM"
    reason: str = Field(default="", max_length=1000, description="For the audit trail")
    dry_run: bool = Field(default=False, description="Only say what is known of each id; nothing is sent")


class BatchBody(Body):
    """What to do with which tasks."""

    task_ids: list[str] = Field(min_length=1, max_length=MAX_IDS)
    operation: Literal["revoke"]
    parameters: RevokeParameters = RevokeParameters()


class BatchHeaders(BaseModel):
    """Headers of their own."""

    model_config = ConfigDict(extra="ignore")

    idempotency_key: str | None = Field(
        default=None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key and body within 24 h give the stored answer",
    )
    prefer: str | None = Field(default=None, alias="Prefer", description="`respond-async`: answer 202 once it is begun")


class BatchPath(BaseModel):
    """Which batch."""

    batch_id: str = Field(min_length=1, max_length=64)


class WorkersReply(BaseModel):
    """Who took the flags."""

    acknowledged: list[str]
    missing: list[str]
    errors: dict[str, str]


class BatchReply(BaseModel):
    """`total` unique ids are `successful`, `failed` or `unverified`: never more is claimed than is proven."""

    batch_id: str | None = Field(description="null for a dry run, of which nothing is kept")
    total: int
    successful: int
    failed: int
    unverified: int
    merged: int = Field(description="Doubles among the ids given")
    summary: str
    results: list[TaskChange]
    workers: WorkersReply
    dry_run: bool
    settled: bool = Field(description="Whether nothing will change any more")
    follow_up: str | None = Field(description="Where to see what becomes of it, while something may")
    timestamp: datetime


def blueprint(*, desk: Desk, keys: Keys, base_path: str) -> ControlBlueprint:
    """The two operations."""
    bp = ControlBlueprint("tasks")

    @bp.post(PATH, permission=Permission.OPERATOR, responses={200: BatchReply, 202: BatchReply}, errors=(409, 503, 504))
    def revoke_tasks(body: BatchBody, header: BatchHeaders) -> Response:
        """Revoke up to 1,000 tasks, and say of each what is proven.

        Answers within 4 s; what is not settled by then is followed (`follow_up`) and held: sent again to workers that
        restart or join.
        """
        order = _ordered(body)
        if order.terminate:
            require_role(Role.ADMIN, "terminate")
        if order.dry_run:
            return _answered(desk.preview(order), base_path)
        if header.idempotency_key is None:
            return take(order, new_id(), header)
        return once(order, header)

    def take(order: Order, batch_id: str, header: BatchHeaders) -> Response:
        wait = "respond-async" not in (header.prefer or "")
        batch = desk.take(order, current_actor(), batch=batch_id, wait=wait)
        return _answered(batch, base_path, status=200 if wait else 202)

    def once(order: Order, header: BatchHeaders) -> Response:
        asked = _asked(header.idempotency_key or "")
        batch_id = new_id()
        earlier = keys.begin(asked, batch_id)
        if earlier is not None and earlier.answer is not None:
            return _replayed(Response(earlier.answer, earlier.status, content_type="application/json"))
        if earlier is not None:
            if (begun := desk.find(earlier.batch)) is not None:
                return _replayed(_answered(begun, base_path))
            keys.forget(asked)
            keys.begin(asked, batch_id)
        try:
            response = take(order, batch_id, header)
        except (RequestRefused, BrokerUnavailable):
            if desk.find(batch_id) is None:
                keys.forget(asked)
            raise
        keys.finish(asked, status=response.status_code, answer=response.get_data(as_text=True))
        return response

    @bp.get(f"{PATH}/<batch_id>", permission=Permission.OPERATOR, responses={200: BatchReply}, errors=(404, 503))
    def read_batch(path: BatchPath) -> Response:
        """What has become of a batch."""
        batch = desk.find(path.batch_id)
        if batch is None:
            raise RequestRefused("not_found", "no batch has this id")
        return _answered(batch, base_path)

    return bp


def _ordered(body: BatchBody) -> Order:
    return ordered(body.task_ids, **body.parameters.model_dump())


def _asked(key: str) -> Asked:
    body = json.dumps(request.get_json(), sort_keys=True).encode()
    return Asked(f"{current_identity().sub} {request.path}", key, hashlib.sha256(body).hexdigest())


def _replayed(response: Response) -> Response:
    response.headers["Idempotency-Replayed"] = "true"
    return response


def _answered(batch: Batch, base_path: str, *, status: int = 200) -> Response:
    dry = not batch.id
    settled = dry or batch.settled
    reply = BatchReply(
        batch_id=batch.id or None,
        total=len(batch.results),
        **totals(batch.results),
        merged=batch.order.merged,
        summary=summary(batch.results),
        results=[change(result) for result in batch.results],
        workers=_workers(batch.workers),
        dry_run=dry,
        settled=settled,
        follow_up=None if settled else f"{base_path}{PATH}/{batch.id}",
        timestamp=utc(batch.at),
    )
    return answer(reply, status)


def _workers(workers: Acknowledgements) -> WorkersReply:
    return WorkersReply(
        acknowledged=sorted(workers.acknowledged), missing=sorted(workers.missing), errors=dict(workers.errors)
    )
