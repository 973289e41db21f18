"""The producer's hook: every task that this process publishes says when it was sent.

Celery messages carry no send time. With the hook, ``celery_queue_oldest_task_timestamp_seconds`` is exact
(``source="stamp"``) whatever events were lost. Call `install` once in the module that defines your Celery app, so that
producers, beat and workers all have it: a worker publishes its retries, and these get a stamp of their own.

    from celery import Celery

    import celerymeter.stamp

    app = Celery("shop", broker="redis://localhost:6379/0")
    celerymeter.stamp.install()

This module needs the standard library and Celery, nothing else.
"""

from __future__ import annotations

import time
from typing import Any

from celery.signals import before_task_publish

HEADER = "celerymeter_sent_at"
"""The message header: UTC seconds by the producer's clock."""


def install() -> None:
    """Stamp every task that this process publishes from now on; calling it again changes nothing."""
    before_task_publish.connect(_stamp, weak=False, dispatch_uid=HEADER)


def uninstall() -> None:
    """Stop stamping."""
    before_task_publish.disconnect(_stamp, dispatch_uid=HEADER)


def _stamp(headers: dict[str, Any], **_: object) -> None:
    """Set the header, over the one that a retried task brings along from its first sending."""
    headers[HEADER] = time.time()
