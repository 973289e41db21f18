"""A pytest plugin for Celery's integration tests: their session worker is the one that runs already.

Their own is a thread of the tests' process, without heartbeats and only ever prefork.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from celery.contrib.testing import worker


@contextlib.contextmanager
def _running_worker(app: Any, **_: object) -> Iterator[None]:
    app.finalize()
    app.set_current()
    app.set_default()
    yield


worker.start_worker = _running_worker
