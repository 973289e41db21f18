"""The usual run time of such tasks, and the time until a queue is empty, by Prometheus; remembered for 30 s."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final

from celerymeter.control.cluster.snapshot import Queries
from celerymeter.control.evidence.task import Usual
from celerymeter.errors import PrometheusError
from celerymeter.prometheus import Scope

KEPT: Final = 30.0
MAX_KEPT: Final = 1000
_QUERIES: Final = {
    "runtime": "max(celery:task_runtime:p95{SEL, name=$name})",
    "drain": "max(celery:queue_drain:seconds{SEL, queue_name=$queue})",
}


class UsualTimes:
    """Asks Prometheus, and for 30 s not again for the same, also when it did not answer. Thread-safe."""

    def __init__(self, client: Queries, scope: Scope, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._scope = scope
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[float, Usual | None]] = OrderedDict()
        self._lock = Lock()

    def of(self, name: str | None, queue: str | None) -> Usual | None:
        """Return what is known; None when Prometheus does not answer."""
        key, now = (name or "", queue or ""), self._clock()
        with self._lock:
            at, usual = self._known.get(key, (now - 2 * KEPT, None))
        if now - at < KEPT:
            return usual
        usual = self._ask(*key)
        with self._lock:
            self._known[key] = now, usual
            if len(self._known) > MAX_KEPT:
                self._known.popitem(last=False)
        return usual

    def _ask(self, name: str, queue: str) -> Usual | None:
        queries = {key: self._scope.render(query, name=name, queue=queue) for key, query in _QUERIES.items()}
        try:
            found = self._client.instants(queries)
        except PrometheusError:
            return None
        return Usual(found["runtime"].value(), found["drain"].value())
