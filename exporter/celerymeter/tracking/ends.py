"""The one end of a run: which counter it adds to, and the memory that tells a second end from a first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from celerymeter.model import UNKNOWN, Event
from celerymeter.tracking.labels import exception_class

if TYPE_CHECKING:
    from celerymeter.tracking.runs import Run


_WRAPPER = "ExceptionWithTraceback"
"""Celery 5.7 names this instead of the hard time limit that ended the run; the traceback's last line tells."""


class EndedRuns:
    """The runs that ended lately, at most ``3 * limit``; terminated ones are kept apart, because they may run on."""

    def __init__(self, limit: int = 8000) -> None:
        self._limit = limit
        self._young: dict[str, Run] = {}
        self._old: dict[str, Run] = {}
        self._terminated: dict[str, Run] = {}

    def add(self, run: Run, *, terminated: bool = False) -> None:
        """Remember an ended run, without what only a running one needs: thousands are kept, of tasks that are over."""
        if run.ended:
            run.worker = run.sent = run.started = run.eta = run.missing_since = None
            run.touched = run.opened
        if terminated:
            self._terminated[run.uuid] = run
            if len(self._terminated) > self._limit:
                self._terminated = dict(list(self._terminated.items())[self._limit // 2 :])
            return
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        self._young[run.uuid] = run

    def get(self, uuid: str) -> Run | None:
        """The last run of this task, if it ended lately."""
        return self._young.get(uuid) or self._old.get(uuid) or self._terminated.get(uuid)


def apply_end(run: Run, event: Event, *, exception: Callable[[str], str], count_retry: bool) -> None:
    """Count the end of a run whose pair is known."""
    pair = run.pair
    assert pair is not None  # noqa: S101 - the caller resolved it; mypy cannot see it
    kind = event.type
    if kind == "task-succeeded":
        pair.succeeded += 1
        if event.runtime is not None:
            pair.runtime.observe(event.runtime)
    elif kind == "task-failed":
        pair.failed += 1
        _raised(pair.exceptions, event, exception)
        if run.started is not None:
            pair.failed_runtime_count += 1
            pair.failed_runtime_sum += max(0.0, event.timestamp - run.started)
    elif kind == "task-retried":
        pair.retried += 1
        if count_retry:
            _raised(pair.retry_exceptions, event, exception)
    elif event.expired:
        pair.revoked_expired += 1
    elif event.terminated:
        pair.revoked_terminated += 1
    else:
        pair.revoked += 1


def _raised(counts: dict[str, int], event: Event, cap: Callable[[str], str]) -> None:
    name = exception_class(event.exception)
    if name == _WRAPPER and event.traceback:
        name = exception_class(event.traceback.rstrip().rpartition("\n")[2])
    label = cap(name) if name != UNKNOWN else name
    counts[label] = counts.get(label, 0) + 1
