"""``GET /audit``: the trail, filtered and paged."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from flask import Response
from pydantic import BaseModel, Field, StringConstraints

from celerymeter.control.audit import reading
from celerymeter.control.audit.chain import Row
from celerymeter.control.audit.trail import AuditTrail
from celerymeter.control.routing import ControlBlueprint, Instant, Permission, Query, answer, utc
from celerymeter.control.store import Store

MAX_ROW = 2**63 - 1
_Text = Annotated[str, StringConstraints(min_length=1, max_length=255)]
_RowNumber = Annotated[int, Field(ge=1, le=MAX_ROW)]


class AuditQuery(Query):
    """Which rows; those that are asked for must all hold."""

    since: Instant | None = Field(default=None, description="Written then or later")
    until: Instant | None = Field(default=None, description="Written before")
    sub: _Text | None = Field(default=None, description="Subject")
    jti: _Text | None = Field(default=None, description="Token id")
    action: _Text | None = None
    kind: Literal["intent", "outcome", "event", "refusal", "token", "checkpoint"] | None = None
    outcome: _Text | None = None
    intent: _RowNumber | None = Field(default=None, description="This intent and all that belongs to it")
    target: _Text | None = Field(default=None, description="A task id, worker or other target")
    before: _RowNumber | None = Field(default=None, description="Rows before this one: `next` of the last page")
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class AuditRow(BaseModel):
    """One row of the trail."""

    row: int
    timestamp: datetime
    kind: str
    action: str
    intent: int | None = Field(description="The row of the intent that this one belongs to")
    sub: str
    jti: str
    address: str
    target: list[Any]
    reason: str
    outcome: str
    detail: dict[str, Any]
    hmac: str


class AuditPage(BaseModel):
    """A page of the trail, the newest row first."""

    rows: list[AuditRow]
    next: int | None = Field(description="Give it as `before` for the page that follows; null at the end")
    head: str = Field(
        description="`ROW:HMAC`: keep it elsewhere, and `celerymeter audit verify --head` proves the rest"
    )


def blueprint(*, trail: AuditTrail, store: Store) -> ControlBlueprint:
    """The one operation of the trail."""
    bp = ControlBlueprint("audit")

    @bp.get("/audit", permission=Permission.ADMIN, responses={200: AuditPage}, errors=(503,))
    def read_audit(query: AuditQuery) -> Response:
        """The audit trail: who did what, to what, why, and what came of it."""
        head = trail.head()
        found = reading.page(store, _filter(query), query.limit + 1)
        shown = found[: query.limit]
        following = shown[-1].row if len(found) > len(shown) else None
        return answer(AuditPage(rows=[_shown(row) for row in shown], next=following, head=str(head)))

    return bp


def _filter(query: AuditQuery) -> reading.Filter:
    return reading.Filter(
        since=_seconds(query.since),
        until=_seconds(query.until),
        sub=query.sub,
        jti=query.jti,
        action=query.action,
        kind=query.kind,
        outcome=query.outcome,
        intent=query.intent,
        target=query.target,
        before=query.before,
    )


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _shown(row: Row) -> AuditRow:
    return AuditRow(
        row=row.row,
        timestamp=utc(row.at),
        kind=row.kind,
        action=row.action,
        intent=row.intent,
        sub=row.sub,
        jti=row.jti,
        address=row.address,
        target=json.loads(row.target),
        reason=row.reason,
        outcome=row.outcome,
        detail=json.loads(row.detail),
        hmac=row.mac.hex(),
    )
