"""``GET /audit``: the trail, filtered and paged."""

from __future__ import annotations

from flask import Response
from pydantic import BaseModel, Field

from celerymeter.control.audit.rows import AuditRow
from celerymeter.control.audit.trail import AuditQuery, AuditTrail
from celerymeter.control.routing import ControlBlueprint, Permission, answer


class AuditPage(BaseModel):
    """A page of the trail, the newest row first."""

    rows: list[AuditRow]
    next: int | None = Field(description="Pass it as `before` to get the next page; null on the last page")
    head: str = Field(
        description="`ROW:HMAC`. Store it elsewhere; `celerymeter audit verify --head` then proves that no row up to "
        "it was removed"
    )


def blueprint(*, trail: AuditTrail) -> ControlBlueprint:
    """Return the operation of the trail."""
    bp = ControlBlueprint("audit")

    @bp.get("/audit", permission=Permission.ADMIN, responses={200: AuditPage}, errors=(503,))
    def read_audit(query: AuditQuery) -> Response:
        """Read the audit trail: each action with its caller, targets, reason and outcome."""
        head = trail.head()
        shown = trail.page(query, query.limit)
        following = shown[-1].row if shown and trail.is_more(query, shown[-1]) else None
        return answer(AuditPage(rows=shown, next=following, head=str(head)))

    return bp
