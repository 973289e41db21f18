"""Composition of the reports: a patient client, the state directory, and the threads between them."""

from __future__ import annotations

from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.reports.desk import ReportDesk
from celerymeter.control.reports.kept import KeptReports
from celerymeter.control.settings import ControlSettings
from celerymeter.control.store import Store
from celerymeter.control.watching import prometheus_client
from celerymeter.prometheus import Scope
from celerymeter.reports.performance import Performance, Question
from celerymeter.reports.report import Report

QUERY_TIMEOUT = 60.0
"""Seconds: nobody holds a connection for a long report."""


def report_desk(settings: ControlSettings, *, store: Store, metrics: ControlMetrics) -> ReportDesk:
    """The desk, not started."""
    client = prometheus_client(settings, metrics, timeout=QUERY_TIMEOUT)
    performance = Performance(client, Scope(settings.cluster, settings.selector))

    def make(question: Question, report_id: str) -> Report:
        return performance.report(question, report_id=report_id)

    return ReportDesk(make, KeptReports(store))
