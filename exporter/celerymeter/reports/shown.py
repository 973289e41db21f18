"""Values as people read them in a page or a ticket. Pure."""

from __future__ import annotations

from datetime import datetime

from celerymeter.reports.language import amount, said
from celerymeter.reports.report import Report
from celerymeter.reports.texts import LABELS

ABSENT = "-"


def count(value: float | None) -> str:
    """Whole tasks or messages, with commas."""
    return ABSENT if value is None else f"{value:,.0f}"


def decimal(value: float | None) -> str:
    """A mean or a rate, with three figures.

    >>> decimal(0.03456), decimal(1234.5)
    ('0.0346', '1,234')
    """
    return ABSENT if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Tasks per second."""
    return ABSENT if value is None else f"{decimal(value)}/s"


def percent(value: float | None) -> str:
    """A share."""
    return ABSENT if value is None else amount(value, "%")


def ms(value: float | None) -> str:
    """A duration of so many milliseconds."""
    if value is None:
        return ABSENT
    return f"{value:.3g} ms" if value < 10 else amount(value, "ms")


def signed(value: float | None) -> str:
    """A change in percent, with its sign."""
    return ABSENT if value is None else f"{value:+.1f}%"


def moment(at: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def reasons(report: Report) -> dict[str, str]:
    """Why figures are unknown, each reason once, with the figures' names."""
    found: dict[str, list[str]] = {}
    for name, note in report.unknown.items():
        found.setdefault(note.text, []).append(name)
    return {text: ", ".join(names) for text, names in found.items()}


def limits(report: Report) -> list[str]:
    """What lowers the verdict; where nothing could be counted, why."""
    notes = report.data_quality.notes or (report.unknown.values() if report.total_tasks is None else ())
    return list(dict.fromkeys(note.text for note in notes))


def label(report: Report, key: str) -> str:
    """A heading in the report's language."""
    return said(LABELS[key], report.language)
