"""Shapes of requests and replies about reports."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field, RootModel

from celerymeter.control.routing import Body, Query
from celerymeter.reports.report import Report

MOMENT = r"^(now|-[0-9]{1,6}[smhdw]|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{5,15}([Zz]|[+-][0-9]{2}:[0-9]{2})?)$"
Language = Literal["en", "zh-TW"]


class ReportBody(Body):
    """The window, and what the report is narrowed to."""

    start: str = Field(pattern=MOMENT, description="ISO 8601, or -24h; without a zone it is the server's")
    end: str = Field(pattern=MOMENT, description="ISO 8601, or -1h, or now")
    task: str | None = Field(default=None, min_length=1, max_length=255, description="Only tasks of this name")
    queue: str | None = Field(default=None, min_length=1, max_length=255, description="Only tasks of this queue")


class PerformanceReport(RootModel[Report]):
    """A performance report. What cannot be known is null, and `unknown` says why."""


class ReportPending(BaseModel):
    """A report that is not ready: ask at `url` again."""

    report_id: str
    status: Literal["running"] = "running"
    url: str


class ReportsQuery(Query):
    """Which reports to list."""

    task: str | None = Field(default=None, max_length=255)
    limit: int = Field(default=50, ge=1, le=200)


class ReportPath(BaseModel):
    """One report."""

    report_id: str = Field(pattern=r"^[0-9a-f]{32}$")


class ReportSummary(BaseModel):
    """One report of the list."""

    report_id: str
    status: Literal["ready", "running", "failed"]
    created_at: datetime
    start: datetime
    end: datetime
    task: str | None
    queue: str | None
    problem: str | None = Field(description="For a failed one: the code of its problem")
    url: str


class ReportsReply(BaseModel):
    """The newest first."""

    reports: list[ReportSummary]
