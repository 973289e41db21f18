"""A kept alert in the words that people read."""

from __future__ import annotations

from celerymeter.control.notifications.kept import KeptAlert
from celerymeter.control.notifications.models import AlertNotice
from celerymeter.control.routing import utc


def notice(alert: KeptAlert, *, language: str) -> AlertNotice:
    """An alert as it is shown."""
    return AlertNotice(
        name=alert.name,
        message=message(alert, language=language),
        severity=alert.severity,
        timestamp=utc(alert.ends_at or alert.starts_at),
        status=alert.status,
        starts_at=utc(alert.starts_at),
        ends_at=None if alert.ends_at is None else utc(alert.ends_at),
        received_at=utc(alert.received_at),
        fingerprint=alert.fingerprint,
        labels=dict(alert.labels),
        annotations=dict(alert.annotations),
    )


def message(alert: KeptAlert, *, language: str) -> str:
    """The summary in this language, else in English, else whatever there is."""
    wanted = ("summary_zh", "description_zh") if language.lower().startswith("zh") else ()
    texts = (alert.annotations.get(name, "") for name in (*wanted, "summary", "description", "message"))
    return next((text for text in texts if text), alert.name)
