"""Sentences and values as people read them: in the language of the reader, rounded, with their unit. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial

from celerymeter.reports.advice_texts import ADVICE
from celerymeter.reports.report import AlertSpan, CapacityRow, Note, QueueRow, Recommendation, Report
from celerymeter.reports.request import Filters
from celerymeter.reports.texts import LABELS, NAMES_LIKE_IT, NOTES, VERDICTS, Text

LANGUAGES = ("en", "zh-TW")
ABSENT = "-"
DAY = 86_400.0


def in_language(report: Report, language: str) -> Report:
    """Return the report with its sentences in ``en`` or ``zh-TW``."""
    quality = report.data_quality
    say = partial(with_text, language=language, scrapes_present=quality.scrapes_present_percent)
    recommendations = tuple(_with_texts(advice, language) for advice in report.recommendations)
    return replace(
        report,
        language=language,
        recommendations=recommendations,
        optimization_recommendations=tuple(f"{advice.text} {advice.action}" for advice in recommendations),
        unknown={name: say(note) for name, note in report.unknown.items()},
        capacity=tuple(replace(row, reason=row.reason and say(row.reason)) for row in report.capacity),
        data_quality=replace(
            quality,
            words=translate(VERDICTS[quality.verdict], language),
            notes=tuple(map(say, quality.notes)),
        ),
    )


def translate(text: Text, language: str) -> str:
    """Return a sentence in one language."""
    return text.zh if language.lower().startswith("zh") else text.en


def with_text(note: Note, *, language: str, scrapes_present: float | None) -> Note:
    """Return a note with its sentence, which may say how many of the scrapes are present (percent)."""
    present = ABSENT if scrapes_present is None else f"{decimal(scrapes_present)}%"
    text = translate(NOTES[note.code], language).format(present=present)
    like = translate(NAMES_LIKE_IT, language).format(names=", ".join(note.names)) if note.names else ""
    return replace(note, text=text + like)


def _with_texts(advice: Recommendation, language: str) -> Recommendation:
    """Fill ``{value}``, ``{threshold}`` and ``{subject}`` from the first evidence, ``{value2}`` … from the second."""
    values = {}
    for number, one in enumerate(advice.evidence, start=1):
        end = "" if number == 1 else str(number)
        values[f"value{end}"] = amount(one.value, one.unit)
        values[f"threshold{end}"] = amount(one.threshold, one.unit)
        values[f"subject{end}"] = one.subject
    text, action = (translate(text, language) for text in ADVICE[advice.code])
    return replace(advice, text=text.format(**values), action=action.format(**values))


def amount(value: float, unit: str) -> str:
    """Return a value with its unit.

    >>> amount(87.34, "%"), amount(1234.0, "messages"), amount(1520.0, "ms")
    ('87.3%', '1,234', '1.52 s')
    """
    if unit == "%":
        return f"{value:.1f}%"
    if unit == "ms":
        return f"{value:,.0f} ms" if value < 1000 else amount(value / 1000, "s")
    return f"{value:,.3g} s" if unit == "s" and value < 1000 else f"{value:,.0f}{' s' if unit == 's' else ''}"


def count(value: float | None) -> str:
    """Return whole tasks or messages, with commas."""
    return ABSENT if value is None else f"{value:,.0f}"


def decimal(value: float | None) -> str:
    """Return a mean or a rate with three digits.

    >>> decimal(0.03456), decimal(1234.5), decimal(0.0000258)
    ('0.0346', '1,234', '≈0')
    """
    if value is None:
        return ABSENT
    if 0 < value < 0.001:
        return "≈0"
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Return tasks per second."""
    return ABSENT if value is None else f"{decimal(value)}/s"


def percent(value: float | None) -> str:
    """Return a share."""
    return ABSENT if value is None else amount(value, "%")


def ms(value: float | None) -> str:
    """Return a duration given in milliseconds."""
    if value is None:
        return ABSENT
    return f"{value:.3g} ms" if value < 10 else amount(value, "ms")


def signed(value: float | None) -> str:
    """Return a change in percent, with its sign."""
    return ABSENT if value is None else f"{value:+.1f}%"


def seconds(value: float) -> str:
    """Return a duration in the two largest units.

    >>> seconds(42.0), seconds(754.0), seconds(7500.0), seconds(180000.0)
    ('42 s', '12 min 34 s', '2 h 5 min', '2 d 2 h')
    """
    whole = round(value)
    units = (("d", whole // 86400), ("h", whole // 3600 % 24), ("min", whole // 60 % 60), ("s", whole % 60))
    first = next((number for number, (_, count) in enumerate(units) if count), len(units) - 1)
    shown = [f"{count} {unit}" for unit, count in units[first : first + 2] if count]
    return " ".join(shown) or "0 s"


def alert_time(report: Report, at: datetime) -> str:
    """Return the time of day, and the date where the window is longer than a day."""
    return f"{at:%H:%M}" if report.time_range.seconds <= DAY else f"{at:%m-%d %H:%M}"


def place(report: Report, span: AlertSpan) -> tuple[float, float]:
    """Return where a time stands in the window: percent before it, and its length in percent."""
    begins, length = report.time_range.start, report.time_range.seconds
    start = (span.start - begins).total_seconds()
    end = length if span.end is None else (span.end - begins).total_seconds()
    return round(100 * start / length, 2), round(max(0.5, 100 * (end - start) / length), 2)


def slot_user(report: Report, row: QueueRow) -> str:
    """Return the task that used most slot time of a queue's workers, and its share."""
    user = row.slot_user
    if user is None:
        return ABSENT
    return f"{user.name} ({percent(user.share_percent)} {label(report, f'of_{user.share_of}')})"


def slots_needed(row: CapacityRow) -> str:
    """Return the slots that would have kept the target with their bounds, or why they are unknown."""
    if row.slots is None:
        return row.reason.text if row.reason else ABSENT
    same = row.slots_at_least == row.slots_at_most
    return count(row.slots) if same else f"{count(row.slots)} ({count(row.slots_at_least)}-{count(row.slots_at_most)})"


def timestamp(at: datetime) -> str:
    """Return a time in UTC, to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def label(report: Report, key: str) -> str:
    """Return a heading in the report's language."""
    return translate(LABELS[key], report.language)


def busy_label(report: Report) -> str:
    """Return the heading of the busy time, which is of all tasks of the workers, whichever the report chose."""
    return label(report, "busy" if report.filters == Filters() else "busy_with_all")


def reasons(report: Report) -> dict[str, str]:
    """Return why metrics are unknown, each reason once, with the names of the metrics."""
    found: dict[str, list[str]] = {}
    for name, note in report.unknown.items():
        found.setdefault(note.text, []).append(name)
    return {text: ", ".join(names) for text, names in found.items()}


def limits(report: Report) -> list[str]:
    """Return what lowers the verdict; where nothing could be counted, why."""
    notes: Iterable[Note] = report.data_quality.notes
    if not report.data_quality.notes and report.total_tasks is None:
        notes = report.unknown.values()
    return list(dict.fromkeys(note.text for note in notes))
