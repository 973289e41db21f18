"""The worker's application for Celery's own integration tests, configured as their ``conftest.py`` does it.

Imported in the folder of a release's source archive, where the package ``t`` is.
"""

from __future__ import annotations

import os

from celery import Celery

app = Celery("tests", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BACKEND"], set_as_current=True)
app.conf.update(
    include=["t.integration.tasks", "tools.celery_workload.notes"],
    result_extended=True,
    task_send_sent_event=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.on_after_finalize.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _register(**_: object) -> None:
    from t.integration.tasks import ClassBasedAutoRetryTask  # type: ignore[import-not-found]  # in the archive

    app.register_task(ClassBasedAutoRetryTask())
