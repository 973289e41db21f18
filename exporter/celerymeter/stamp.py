"""The producer's hook: every task that this process publishes says when it was sent.

Celery messages carry no send time. With the hook, ``celery_queue_oldest_task_timestamp_seconds`` is exact
(``source="stamp"``) whatever events were lost. Call `install` once in the module that defines your Celery app, so that
producers, beat and workers all have it: a worker publishes its retries, and these get a stamp of their own.

    from celery import Celery

    import celerymeter.stamp

    app = Celery("shop", broker="redis://localhost:6379/0")
    celerymeter.stamp.install(version="1.4.2")

``version`` is that of your application and may be left out: workers tell it, and dashboards mark when it changes.

This module needs the standard library and Celery, nothing else.
"""

from __future__ import annotations

import time
from typing import Any

from celery.signals import before_task_publish, worker_init

HEADER = "celerymeter_sent_at"
"""The message header: UTC seconds by the producer's clock."""
_fields: dict[str, str] = {}
"""Fields that workers add to their heartbeats."""


def install(*, version: str | None = None) -> None:
    """Stamp every task that this process publishes from now on; calling it again changes the version only."""
    before_task_publish.connect(_stamp, weak=False, dispatch_uid=HEADER)
    if version:
        tell_version(version)


def tell_version(version: str) -> None:
    """Let a worker that starts in this process tell which version of the application it runs."""
    _fields["application_version"] = str(version)
    worker_init.connect(_tell, weak=False, dispatch_uid="celerymeter_version")


def uninstall() -> None:
    """Stop stamping, and telling the version to workers that start later."""
    before_task_publish.disconnect(_stamp, dispatch_uid=HEADER)
    worker_init.disconnect(_tell, dispatch_uid="celerymeter_version")
    _fields.clear()


def _stamp(headers: dict[str, Any], **_: object) -> None:
    """Set the header, over the one that a retried task brings along from its first sending."""
    headers[HEADER] = time.time()


def _tell(**_: object) -> None:
    """Extend what Celery puts into each heartbeat of this process (`celery.worker.heartbeat`)."""
    from celery.worker import state  # in workers only: producers do without it

    state.SOFTWARE_INFO.update(_fields)
