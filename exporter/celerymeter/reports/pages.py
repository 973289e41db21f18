"""Whole pages of task counters, and their differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from celerymeter.prometheus import Vector

ENDS = ("succeeded", "failed", "rejected", "revoked")
"""A task comes to an end in one of these ways; a retry is none, and neither is a rejection that requeues."""

FAMILIES = {
    "celery_task_succeeded_total": "succeeded",
    "celery_task_failed_total": "failed",
    "celery_task_retried_total": "retried",
    "celery_task_rejected_total": "rejected",
    "celery_task_revoked_total": "revoked",
    "celery_task_runtime_seconds_sum": "runtime_sum",
    "celery_task_runtime_seconds_count": "runtime_count",
    "celery_task_failed_runtime_seconds_sum": "failed_runtime_sum",
    "celery_task_failed_runtime_seconds_count": "failed_runtime_count",
    "celery_task_wait_seconds_sum": "wait_sum",
    "celery_task_wait_seconds_count": "wait_count",
    "celery_task_runtime_seconds_bucket": "runtime_bucket",
    "celery_task_wait_seconds_bucket": "wait_bucket",
    "celery_worker_tasks_processed_total": "processed",
    "celerymeter_events_missed_total": "missed",
    "celerymeter_series_folded_total": "folded",
}


class Key(NamedTuple):
    """One figure: what is counted, of which task in which queue, or of which worker.

    ``le`` is a bucket's bound; buckets are of a task in all of its queues, or of a queue (``queue_wait_bucket``).
    """

    what: str
    name: str
    queue_name: str
    le: str = ""
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Figures by key; what is absent is 0, because the page was there."""

    values: Mapping[Key, float] = field(default_factory=dict)

    def total(self, what: str, *, name: str | None = None, queue_name: str | None = None) -> float:
        """The sum of one figure, over all tasks and queues or over one of them."""
        return sum(
            value
            for key, value in self.values.items()
            if key.what == what
            and (name is None or key.name == name)
            and (queue_name is None or key.queue_name == queue_name)
        )

    @property
    def ended(self) -> float:
        """Tasks that came to an end."""
        return sum(self.total(what) for what in ENDS)

    def buckets(self, what: str) -> dict[float, float]:
        """A histogram's cumulative counts by upper bound."""
        found: dict[float, float] = defaultdict(float)
        for key, value in self.values.items():
            if key.what == what:
                found[float(key.le)] += value
        return dict(found)

    def split(self, label: Literal["name", "queue_name", "hostname"]) -> dict[str, Counts]:
        """By the values of a label, in one pass; what lacks the label is left out."""
        parts: dict[str, dict[Key, float]] = defaultdict(dict)
        for key, value in self.values.items():
            if text := getattr(key, label):
                parts[text][key] = value
        return {text: Counts(values) for text, values in parts.items()}

    def minus(self, base: Counts) -> Counts:
        """What was counted since ``base``, an earlier page of the same life."""
        grown = {key: value - base.values.get(key, 0.0) for key, value in self.values.items()}
        return Counts({key: value for key, value in grown.items() if value})

    @staticmethod
    def sum(parts: Iterable[Counts]) -> Counts:
        """Everything added up."""
        totals: dict[Key, float] = defaultdict(float)
        for part in parts:
            for key, value in part.values.items():
                totals[key] += value
        return Counts(dict(totals))


def read_page(answer: Vector) -> Counts:
    """A page in the answer to `celerymeter.reports.queries.PAGE`."""
    values: dict[Key, float] = defaultdict(float)
    for sample in answer:
        what = FAMILIES.get(sample.label("__name__"))
        if what is not None:
            key = Key(what, *sample.key("name", "queue_name", "le", "hostname"))
            values[key._replace(what=f"queue_{what}") if key.le and not key.name else key] += sample.value
    return Counts(dict(values))
