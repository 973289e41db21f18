"""Alerts from Alertmanager: taken by a webhook, logged, stored, listed, and sent to the feed."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from flask import Response
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator

from celerymeter import escaping
from celerymeter.control.feed.hub import Hub
from celerymeter.control.routing import ControlBlueprint, Instant, Permission, Query, answer, utc
from celerymeter.control.store import Store

MAX_ALERTS: Final = 10_000
MAX_POSTED: Final = 1000
"""Alerts of one notification that are taken; `max_alerts` in our Alertmanager's configuration is the same."""
MAX_TEXT: Final = 16 * 1024
"""Bytes of an alert's labels and annotations, each; ten times what ours have. 500 alerts are in one reply."""
MAX_SEVERITY: Final = 64
RETENTION: Final = 30 * 86400.0
"""Seconds for which an alert is listed."""

Labels = Annotated[dict[str, str], Field(max_length=1000)]
"""Texts of any length: Alertmanager does not post again what was refused, so a long one may not cost other alerts."""
AlertStatus = Literal["firing", "resolved"]

log = logging.getLogger(__name__)
_LEVELS: Final = {"critical": logging.ERROR, "warning": logging.WARNING}


class PostedAlert(BaseModel):
    """One alert of a notification. Unknown members are ignored, since newer releases may add some."""

    model_config = ConfigDict(extra="ignore")

    status: AlertStatus
    labels: Labels
    annotations: Labels = Field(default_factory=dict)
    startsAt: Instant  # noqa: N815 - the wire's name
    endsAt: Instant | None = Field(default=None, description="The year 1 while the alert fires")  # noqa: N815 - the wire's name
    fingerprint: Annotated[str, StringConstraints(max_length=256)] = Field(default="", description="Hash of the labels")

    @property
    def identity(self) -> str:
        """The fingerprint; releases before 0.19 send none."""
        return self.fingerprint or hashlib.sha256(json.dumps(sorted(self.labels.items())).encode()).hexdigest()[:16]

    @property
    def ended_at(self) -> float | None:
        """UTC seconds; ``None`` while it fires, whatever ``endsAt`` says."""
        return self.endsAt.timestamp() if self.endsAt and self.status == "resolved" else None


class Notification(BaseModel):
    """A notification as Alertmanager posts it to a webhook receiver (version 4)."""

    model_config = ConfigDict(extra="ignore")

    alerts: list[PostedAlert] = Field(description=f"Of more than {MAX_POSTED} the first; the others are counted")
    truncatedAlerts: int = Field(  # noqa: N815 - the wire's name
        default=0,
        ge=0,
        le=1_000_000_000,
        description="Alerts that Alertmanager left out, beyond its `max_alerts`",
    )

    @model_validator(mode="before")
    @classmethod
    def _take_first(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(posted := value.get("alerts"), list):
            return value
        surplus, truncated = len(posted) - MAX_POSTED, value.get("truncatedAlerts", 0)
        if isinstance(truncated, bool) or not isinstance(truncated, int | float):
            raise ValueError("truncatedAlerts must be a number")
        if surplus <= 0:
            return value
        return {**value, "alerts": posted[:MAX_POSTED], "truncatedAlerts": truncated + surplus}


class NotificationReply(BaseModel):
    """The number of alerts that were accepted; ``repeated`` ones were known already and changed nothing.

    ``truncated`` ones were left out, by Alertmanager or here, and counted.
    """

    received: int
    new: int
    repeated: int
    truncated: int


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert. ``timestamp`` is when it began or, once resolved, when it ended."""

    name: str
    message: str
    severity: str
    timestamp: datetime
    status: AlertStatus
    starts_at: datetime
    ends_at: datetime | None
    received_at: datetime
    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str]


class AlertsQuery(Query):
    """A filter for alerts."""

    status: AlertStatus | None = None
    name: str | None = Field(default=None, max_length=256)
    severity: str | None = Field(default=None, max_length=MAX_SEVERITY)
    limit: int = Field(default=100, ge=1, le=500)


class AlertsReply(BaseModel):
    """Alerts, the newest first. ``firing`` counts all that fire, whether listed or not."""

    alerts: list[Alert]
    firing: int


def blueprint(*, store: AlertStore, hub: Hub, counter: Counter, left_out: Callable[[int], object]) -> ControlBlueprint:
    """Return the operations on alerts; ``left_out`` is called with the number of alerts that did not fit."""
    bp = ControlBlueprint("alerts")

    @bp.post(
        "/alerts/webhook",
        permission=Permission.WEBHOOK,
        responses={200: NotificationReply},
        errors=(503,),
        unaudited="every alert is logged and kept by itself",
    )
    def take_alerts(body: Notification) -> Response:
        """Receive alerts from Alertmanager.

        For its `webhook_configs`. Each alert is logged as one structured line, stored, and sent to the feed. One that
        is posted again with the same fingerprint, times and status changes nothing.
        """
        # Alertmanager posts again until it gets a 2xx, so nothing may go out before the alerts are on disk.
        new = store.add(body.alerts)
        for alert in new:
            _log(alert)
            counter.labels(alert.status).inc()
            hub.publish("alert", alert)
        received, truncated = len(body.alerts), body.truncatedAlerts
        if truncated:
            left_out(truncated)
            log.warning("a notification has %d alerts more than fit: they are only in Alertmanager", truncated)
        reply = NotificationReply(received=received, new=len(new), repeated=received - len(new), truncated=truncated)
        return answer(reply)

    @bp.get("/alerts", permission=Permission.VIEWER, responses={200: AlertsReply}, errors=(503,))
    def list_alerts(query: AlertsQuery) -> Response:
        """List firing and recent alerts, the newest first.

        As Alertmanager posted them; at most 10,000 are stored, for 30 days.
        """
        return answer(AlertsReply(alerts=store.latest(query), firing=store.count_firing()))

    return bp


def _log(alert: Alert) -> None:
    level = _LEVELS.get(alert.severity, logging.INFO) if alert.status == "firing" else logging.INFO
    log.log(
        level,
        "alert %s: %s - %s",
        alert.status,
        alert.name,
        _message(alert.name, alert.annotations, language="en"),
        extra={
            "alert": alert.name,
            "status": alert.status,
            "severity": alert.severity,
            "fingerprint": alert.fingerprint,
            "labels": alert.labels,
            "starts_at": alert.starts_at.timestamp(),
            "ends_at": None if alert.ends_at is None else alert.ends_at.timestamp(),
        },
    )


_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS alerts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint TEXT NOT NULL, status TEXT NOT NULL,
        starts_at REAL NOT NULL, ends_at REAL NOT NULL, received_at REAL NOT NULL,
        name TEXT NOT NULL, severity TEXT NOT NULL, labels TEXT NOT NULL, annotations TEXT NOT NULL,
        UNIQUE (fingerprint, starts_at, ends_at, status))""",
    "CREATE INDEX IF NOT EXISTS alerts_received ON alerts (received_at)",
)
_ALERT: Final = TypeAdapter(Alert)
_TEXTS: Final = TypeAdapter(dict[str, str])
_INSERT: Final = """
    INSERT OR IGNORE INTO alerts
    (fingerprint, status, starts_at, ends_at, received_at, name, severity, labels, annotations)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_NOT_ENDED: Final = 0.0
"""Stored in place of NULL: SQL's NULL equals nothing, so the table's UNIQUE would not find a repeated alert."""
_LATEST: Final = """
    SELECT * FROM alerts AS a WHERE NOT EXISTS (
        SELECT 1 FROM alerts AS b WHERE b.fingerprint = a.fingerprint AND b.starts_at = a.starts_at
        AND (b.status, b.id) > (a.status, a.id))"""
"""The last state of each alert; ``resolved`` sorts after ``firing``, so a late ``firing`` does not reopen it."""


class AlertStore:
    """Alerts on disk, each change of status once. Every method raises `StateError` when the disk fails."""

    def __init__(
        self,
        store: Store,
        *,
        language: str = "en",
        shortened: Callable[[int], object] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Call ``shortened`` with the number of texts that are cut or left out because an alert has too many."""
        store.declare(*_TABLES)
        self._shortened = shortened
        self._store = store
        self._language = language
        self._clock = clock

    def add(self, posted: Sequence[PostedAlert]) -> list[Alert]:
        """Store alerts, durably when this returns; return those that say something new."""
        with self._store.write() as connection:
            ids = [new_id for alert in posted if (new_id := self._insert(connection, alert))]
            connection.execute(
                "DELETE FROM alerts WHERE received_at < ? "
                "OR id <= (SELECT id FROM alerts ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (self._clock() - RETENTION, MAX_ALERTS),
            )
        marks = ", ".join("?" * len(ids))
        return self._select(f"SELECT * FROM alerts WHERE id IN ({marks}) ORDER BY id", ids)  # noqa: S608 - marks only

    def latest(self, query: AlertsQuery) -> list[Alert]:
        """Return the last state of each alert, the newest first."""
        filters = {"status": query.status, "name": query.name, "severity": query.severity}
        given = {column: value for column, value in filters.items() if value is not None}
        where = "".join(f" AND {column} = ?" for column in given)
        return self._select(f"{_LATEST}{where} ORDER BY id DESC LIMIT ?", (*given.values(), query.limit))

    def count_firing(self) -> int:
        """Return the number of alerts that fire."""
        return int(self._store.read(f"SELECT COUNT(*) AS n FROM ({_LATEST} AND status = 'firing')")[0]["n"])  # noqa: S608 - constant

    def _insert(self, connection: sqlite3.Connection, alert: PostedAlert) -> int:
        """Return the new row's id, or 0 when that state is known."""
        row = (
            alert.identity,
            alert.status,
            alert.startsAt.timestamp(),
            alert.ended_at or _NOT_ENDED,
            self._clock(),
            escaping.name(alert.labels.get("alertname", "")),
            escaping.name(alert.labels.get("severity", "none"))[:MAX_SEVERITY],
            self._text(alert.labels),
            self._text(alert.annotations),
        )
        cursor = connection.execute(_INSERT, row)
        # An ignored INSERT leaves `lastrowid` at the row before.
        return int(cursor.lastrowid or 0) if cursor.rowcount else 0

    def _text(self, texts: Mapping[str, str]) -> str:
        """Return labels or annotations as JSON: whole, or with long texts cut and the last ones left out."""
        # No text is escaped that is too long before: of control characters that takes half a second a megabyte.
        if sum(len(name) + len(text) for name, text in texts.items()) <= MAX_TEXT:
            whole = escaping.json_text(texts)
            if len(whole.encode()) <= MAX_TEXT:
                return whole
        kept: dict[str, str] = {}
        room = MAX_TEXT
        # The shortest first: names and severities are short, and who fills an alert does not choose them.
        for name, text in sorted(texts.items(), key=lambda item: len(item[0]) + len(item[1])):
            if len(name) >= room:
                self._shortened(1)
                continue
            room -= _stored_size(name) + 4
            begin = text[: max(0, room)]
            cut = begin if _stored_size(begin) <= room and begin == text else _cut(begin, room)
            self._shortened(cut != text)
            room -= _stored_size(cut)
            if cut:
                kept[name] = cut
        return escaping.json_text(kept)

    def _select(self, query: str, parameters: Sequence[object]) -> list[Alert]:
        return self._store.load("alerts", self._alert, query, parameters)

    def _alert(self, row: sqlite3.Row) -> Alert:
        annotations = _TEXTS.validate_json(row["annotations"])
        fields = {
            "name": row["name"],
            "message": _message(row["name"], annotations, language=self._language),
            "severity": row["severity"],
            "timestamp": utc(row["ends_at"] or row["starts_at"]),
            "status": row["status"],
            "starts_at": utc(row["starts_at"]),
            "ends_at": utc(row["ends_at"]) if row["ends_at"] else None,
            "received_at": utc(row["received_at"]),
            "fingerprint": row["fingerprint"],
            "labels": _TEXTS.validate_json(row["labels"]),
            "annotations": annotations,
        }
        return _ALERT.validate_python(fields)


def _stored_size(text: str) -> int:
    return len(escaping.json_text(text).encode())


def _cut(text: str, room: int) -> str:
    """Return as much of a text as surely fits (a character takes at most six bytes in JSON), with a mark."""
    return text[: (room - 8) // 6] + escaping.CUT if room >= 64 else ""


def _message(name: str, annotations: Mapping[str, str], *, language: str) -> str:
    """Return the summary in this language, else in English, else any text there is."""
    chinese = ("summary_zh", "description_zh") if language.lower().startswith("zh") else ()
    texts = (annotations.get(key, "") for key in (*chinese, "summary", "description", "message"))
    return next((text for text in texts if text), name)
