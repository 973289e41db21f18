"""Run report jobs beside the requests: a client gets a quick report at once, and the address of a slow one."""

from __future__ import annotations

import logging
import uuid
from concurrent.futures import ThreadPoolExecutor, wait
from threading import BoundedSemaphore
from typing import Final, Protocol

from celerymeter.control.reports.kept import KeptReports
from celerymeter.errors import CelerymeterError, PrometheusError, RequestRefused, StateError
from celerymeter.reports.report import Report
from celerymeter.reports.request import ReportRequest

log = logging.getLogger(__name__)

ANSWER_WITHIN: Final = 4.0
"""Seconds: clients of the API give up after 5."""
AT_ONCE: Final = 2
WAITING: Final = 8
"""Reports that are made at once, and that may be asked for in all before they are ready."""
RETRY_AFTER: Final = 10.0


class MakeReport(Protocol):
    """Makes a report; may take minutes, and raises `PrometheusError`."""

    def __call__(self, request: ReportRequest, *, report_id: str) -> Report: ...


class ReportRunner:
    """Makes reports on threads of its own."""

    def __init__(self, make: MakeReport, kept: KeptReports, *, timeout: float = ANSWER_WITHIN) -> None:
        self.kept = kept
        self._make = make
        self._timeout = timeout
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="reports")
        self._places = BoundedSemaphore(WAITING)

    def start(self) -> None:
        """Threads come with the first request."""

    def stop(self) -> None:
        """Take no more; what is under way is marked by its age when it does not end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, request: ReportRequest) -> Report | str:
        """The report, or its id when it takes longer; raises what making it raised, and `RequestRefused`."""
        if not self._places.acquire(blocking=False):
            raise RequestRefused("too_many_requests", "too many reports are being made", retry_after=RETRY_AFTER)
        report_id = uuid.uuid4().hex
        try:
            self.kept.begin(report_id, request)
            future = self._pool.submit(self._work, request, report_id)
        except BaseException:
            self._places.release()
            raise
        wait([future], self._timeout)
        return future.result() if future.done() else report_id

    def _work(self, request: ReportRequest, report_id: str) -> Report:
        try:
            report = self._make(request, report_id=report_id)
            self.kept.finish(report)
        except Exception as error:
            self._fail(report_id, error)
            raise
        finally:
            self._places.release()
        return report

    def _fail(self, report_id: str, error: Exception) -> None:
        known = isinstance(error, CelerymeterError)
        log.warning("report %s failed: %s", report_id, error if known else "unexpected error", exc_info=not known)
        try:
            self.kept.fail(report_id, "prometheus_unavailable" if isinstance(error, PrometheusError) else "internal")
        except StateError as unkept:
            log.warning("report %s: %s", report_id, unkept)
