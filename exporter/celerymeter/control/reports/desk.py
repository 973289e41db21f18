"""Makes reports beside the requests: a client gets one that is quick, and the address of one that is not."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import BoundedSemaphore
from typing import Final

from celerymeter.control.reports.kept import KeptReports
from celerymeter.errors import CelerymeterError, PrometheusError, RequestRefused, StateError
from celerymeter.reports.performance import Question
from celerymeter.reports.report import Report

log = logging.getLogger(__name__)

PATIENCE: Final = 4.0
"""Seconds: clients of the API give up after 5."""
AT_ONCE: Final = 2
WAITING: Final = 8
"""Reports that are made at once, and that may be asked for in all before they are ready."""
RETRY_AFTER: Final = 10.0

Make = Callable[[Question, str], Report]
"""Makes the report with this id; may take its time, and raises `PrometheusError`."""


class ReportDesk:
    """Takes questions; a `Background` for its threads."""

    def __init__(self, make: Make, kept: KeptReports, *, patience: float = PATIENCE) -> None:
        self.kept = kept
        self._make = make
        self._patience = patience
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="reports")
        self._places = BoundedSemaphore(WAITING)

    def start(self) -> None:
        """Threads come with the first question."""

    def stop(self) -> None:
        """Take no more; what is under way is marked by its age when it does not end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, question: Question) -> Report | str:
        """The report, or its id when it takes longer; raises what making it raised, and `RequestRefused`."""
        if not self._places.acquire(blocking=False):
            raise RequestRefused("too_many_requests", "too many reports are being made", retry_after=RETRY_AFTER)
        report_id = uuid.uuid4().hex
        try:
            self.kept.begin(report_id, question)
            future = self._pool.submit(self._work, question, report_id)
        except BaseException:
            self._places.release()
            raise
        wait([future], self._patience)
        return future.result() if future.done() else report_id

    def _work(self, question: Question, report_id: str) -> Report:
        try:
            report = self._make(question, report_id)
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
