"""A report as a file: JSON, HTML, CSV, Markdown."""

from __future__ import annotations

import msgspec

from celerymeter.reports.report import Report

FORMATS = ("json", "html", "csv", "md")
CONTENT_TYPES = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
}


def to_json(report: Report) -> bytes:
    """The report as it is sent and kept."""
    return msgspec.json.encode(report)


def from_json(text: bytes) -> Report:
    """What `to_json` wrote."""
    return msgspec.json.decode(text, type=Report)


def written(report: Report, form: str) -> bytes:
    """The report in one of `FORMATS`."""
    if form == "html":
        from celerymeter.reports.html import page

        return page(report).encode()
    if form == "csv":
        from celerymeter.reports.table import to_csv

        return to_csv(report).encode()
    if form == "md":
        from celerymeter.reports.markdown import to_markdown

        return to_markdown(report).encode()
    return to_json(report)
