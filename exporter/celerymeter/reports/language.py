"""The sentences of a report in the language of its reader. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from celerymeter.reports.report import Evidence, Note, Recommendation, Report
from celerymeter.reports.texts import ADVICE, NOTES, VERDICTS, Text

LANGUAGES = ("en", "zh-TW")


def in_language(report: Report, language: str) -> Report:
    """The same report with its sentences in ``en`` or ``zh-TW``."""
    recommendations = tuple(_advised(advice, language) for advice in report.recommendations)
    quality = replace(
        report.data_quality,
        words=said(VERDICTS[report.data_quality.verdict], language),
        notes=tuple(_noted(note, language) for note in report.data_quality.notes),
    )
    return replace(
        report,
        language=language,
        recommendations=recommendations,
        optimization_recommendations=tuple(_sentence(advice) for advice in recommendations),
        unknown={name: _noted(note, language) for name, note in report.unknown.items()},
        data_quality=quality,
    )


def said(text: Text, language: str) -> str:
    """A sentence in one language."""
    return text.zh if language.lower().startswith("zh") else text.en


def amount(value: float, unit: str) -> str:
    """A value with its unit, rounded for reading.

    >>> amount(87.34, "%"), amount(1234.0, "messages"), amount(1520.0, "ms")
    ('87.3%', '1,234', '1.52 s')
    """
    if unit == "%":
        return f"{value:.1f}%"
    if unit == "ms":
        return f"{value:,.0f} ms" if value < 1000 else amount(value / 1000, "s")
    return f"{value:,.3g} s" if unit == "s" and value < 1000 else f"{value:,.0f}{' s' if unit == 's' else ''}"


def _sentence(advice: Recommendation) -> str:
    return f"{advice.text} {advice.action}"


def _advised(advice: Recommendation, language: str) -> Recommendation:
    text, action = ADVICE[advice.code]
    values = _values(advice.evidence)
    return replace(advice, text=said(text, language).format(**values), action=said(action, language))


def _values(evidence: Iterable[Evidence]) -> dict[str, str]:
    found = {}
    for number, one in enumerate(evidence, start=1):
        end = "" if number == 1 else str(number)
        found[f"value{end}"] = amount(one.value, one.unit)
        found[f"threshold{end}"] = amount(one.threshold, one.unit)
        found[f"subject{end}"] = one.subject
    return found


def _noted(note: Note, language: str) -> Note:
    return replace(note, text=said(NOTES[note.code], language))
