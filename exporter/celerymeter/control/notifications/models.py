"""Alerts as Alertmanager posts them, and as we show them."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from celerymeter.control.routing import Instant

Text = Annotated[str, StringConstraints(max_length=4096)]
Texts = Annotated[dict[Annotated[str, StringConstraints(max_length=256)], Text], Field(max_length=100)]
Status = Literal["firing", "resolved"]


class PostedAlert(BaseModel):
    """One alert of a notification; members that we do not know are left alone."""

    model_config = ConfigDict(extra="ignore")

    status: Status
    labels: Texts
    annotations: Texts = Field(default_factory=dict)
    startsAt: Instant  # noqa: N815 - the wire's name
    endsAt: Instant | None = Field(default=None, description="The year 1 while it fires")  # noqa: N815 - the wire's name
    fingerprint: Text = Field(default="", description="Of the labels")

    @property
    def identity(self) -> str:
        """The fingerprint; releases before 0.19 send none."""
        return self.fingerprint or hashlib.sha256(json.dumps(sorted(self.labels.items())).encode()).hexdigest()[:16]

    @property
    def ended_at(self) -> float | None:
        """UTC seconds; ``None`` while it fires, whatever ``endsAt`` says."""
        return self.endsAt.timestamp() if self.endsAt and self.status == "resolved" else None


class Notification(BaseModel):
    """What Alertmanager's webhook receiver posts (version 4)."""

    model_config = ConfigDict(extra="ignore")

    version: Text = ""
    alerts: list[PostedAlert] = Field(max_length=1000)


class Taken(BaseModel):
    """What became of a notification; ``repeated`` ones were known already and changed nothing."""

    received: int
    new: int
    repeated: int


class AlertNotice(BaseModel):
    """An alert. ``timestamp`` is when it began or, once resolved, when it ended."""

    name: str
    message: str
    severity: str
    timestamp: datetime
    status: Status
    starts_at: datetime
    ends_at: datetime | None
    received_at: datetime
    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str]


class AlertsReply(BaseModel):
    """Alerts, the newest first. ``firing`` counts all that fire, whether listed or not."""

    alerts: list[AlertNotice]
    firing: int
