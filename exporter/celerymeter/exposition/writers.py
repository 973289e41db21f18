"""Writers of families that are single values, or values by one label: of workers, their replies, or queues."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from celerymeter.exposition.scrape import Scrape
from celerymeter.metrics import Family
from celerymeter.model import QueueState, WorkerState
from celerymeter.tracking.worker import Worker

Rows = Mapping[str, float | None]
"""Values by the family's only label; a row without a value is left out."""
Writer = Callable[[Scrape, Family], None]
"""Adds one family to the page."""


def single(value: Callable[[Scrape], float | None]) -> Writer:
    """A family without labels."""
    return lambda scrape, family: scrape.text.single(family, value(scrape))


def values(rows: Callable[[Scrape], Rows]) -> Writer:
    """A family with one label."""
    return lambda scrape, family: scrape.text.values(family, rows(scrape))


def by_worker(value: Callable[[Worker], float | None]) -> Writer:
    """A value of every worker."""
    return values(lambda scrape: {worker.hostname: value(worker) for worker in scrape.workers})


def by_up_worker(value: Callable[[Worker], float | None]) -> Writer:
    """A value of every worker that is up."""
    return values(lambda scrape: {worker.hostname: value(worker) for worker in scrape.up})


def by_reply(value: Callable[[WorkerState], float | None]) -> Writer:
    """A value of every worker's last reply."""
    return values(lambda scrape: {state.hostname: value(state) for state in scrape.replies or ()})


def by_recent_reply(value: Callable[[WorkerState], float | None]) -> Writer:
    """A count of tasks that every worker holds, as long as it replies."""
    return values(lambda scrape: {state.hostname: value(state) for state in scrape.recent_replies})


def by_queue(value: Callable[[QueueState], float | None]) -> Writer:
    """A value of every queue."""
    return values(lambda scrape: scrape.by_queue(value))


def by_consumed_queue(value: Callable[[WorkerState], int | None]) -> Writer:
    """A value of every worker, added up by the queues that it consumes."""
    return values(lambda scrape: scrape.by_consumed_queue(value))
