"""The cluster's result backend, asked about many tasks at once. Results themselves are dropped at once.

Of what is stored in Redis only the first 64 KiB are kept; they begin with the state. Other backends return the whole.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from celery import Celery
from celery.backends.base import BaseKeyValueStoreBackend
from celery.backends.redis import RedisBackend

from celerymeter.control.evidence.task import StoredResult
from celerymeter.errors import BackendUnavailable, SettingsError
from celerymeter.inspect_replies import mapping, text
from celerymeter.redis_parser import limit_values
from celerymeter.settings import BrokerSettings
from celerymeter.urls import without_password

LOOKUP_TIMEOUT: Final = 1.0
PAGE: Final = 50
"""Tasks whose stored values are in memory at once."""
LONGEST: Final = 64 * 1024
"""Bytes of a stored value that are kept."""
_STATE: Final = re.compile(rb'\{"status": ?"([A-Z_]{1,50})", ?"result":')
"""The beginning of what Celery stores (`celery.backends.base.Backend._get_result_meta`)."""

log = logging.getLogger(__name__)


class ResultBackend:
    """A key-value result backend; raises `SettingsError` for one of another kind."""

    def __init__(
        self,
        url: str,
        broker: BrokerSettings,
        *,
        cut: Callable[[int], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call ``cut`` with the number of stored values that were too long to be read whole."""
        app = Celery("celerymeter", backend=url, set_as_current=False, fixups=[])
        app.conf.update(broker.celery_settings)
        # Pickled results are never loaded, and a dead backend must not use up the time of an answer.
        app.conf.update(
            accept_content=["json"],
            result_serializer="json",
            redis_socket_timeout=LOOKUP_TIMEOUT,
            redis_socket_connect_timeout=LOOKUP_TIMEOUT,
            redis_retry_on_timeout=False,
        )
        try:
            backend: Any = app.backend
        except Exception as error:  # a driver that is not installed raises what it likes
            raise SettingsError(f"--result-backend-url {without_password(url)}: cannot be used") from error
        if not isinstance(backend, BaseKeyValueStoreBackend):
            raise SettingsError(f"--result-backend-url {without_password(url)}: not a key-value backend (redis://, …)")
        self._backend: Any = backend
        self._cut = cut
        self._clock = clock
        if isinstance(backend, RedisBackend):
            limit_values(backend.client.connection_pool, LONGEST)

    def states(self, task_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the stored states; what cannot be read now is left out."""
        try:
            return {task_id: stored.state for task_id, stored in self.stored(task_ids).items()}
        except BackendUnavailable as error:  # other evidence must do
            log.warning("%s", error)
            return {}

    def stored(self, task_ids: Sequence[str]) -> Mapping[str, StoredResult]:
        """Return what is stored of these tasks, as far as it is read within a second; raises `BackendUnavailable`."""
        found: dict[str, StoredResult] = {}
        until = self._clock() + LOOKUP_TIMEOUT
        for start in range(0, len(task_ids), PAGE):
            if start and self._clock() > until:
                log.warning(
                    "the result backend is slow: %d of %d states are not known", len(task_ids) - start, len(task_ids)
                )
                break
            page = task_ids[start : start + PAGE]
            for task_id, value in zip(page, self._values(page), strict=False):
                if value and (stored := self._read(value)) is not None:
                    found[task_id] = stored
        return found

    def _values(self, task_ids: Sequence[str]) -> Sequence[Any]:
        try:
            values: Sequence[Any] = self._backend.mget(
                [self._backend.get_key_for_task(task_id) for task_id in task_ids]
            )
        except Exception as error:  # every backend has errors of its own
            raise BackendUnavailable(f"the result backend does not answer ({type(error).__name__})") from error
        return values

    def _read(self, value: Any) -> StoredResult | None:
        if isinstance(self._backend, RedisBackend) and len(value) >= LONGEST:
            self._cut(1)
            state = _STATE.match(value)
            return None if state is None else StoredResult(state[1].decode())
        return self._decode(value)

    def _decode(self, value: Any) -> StoredResult | None:
        try:
            meta = mapping(self._backend.decode(value))
        except Exception:  # noqa: BLE001 - not JSON, or compressed: it says nothing
            return None
        state, result = text(meta.get("status")), mapping(meta.get("result"))
        if state is None:
            return None
        failed = state in ("FAILURE", "RETRY", "REVOKED")
        return StoredResult(
            state,
            ended_at=_seconds(meta.get("date_done")),
            exception=text(result.get("exc_type")) if failed else None,
            name=text(meta.get("name")),
            worker=text(meta.get("worker")) or (text(result.get("hostname")) if state == "STARTED" else None),
        )


def open_result_backend(
    url: str | None, broker: BrokerSettings, *, cut: Callable[[int], object] = lambda _: None
) -> ResultBackend | None:
    """Return the configured backend, if any; raises `SettingsError`."""
    return ResultBackend(url, broker, cut=cut) if url else None


def _seconds(value: object) -> float | None:
    """Return the time that a backend stored: in UTC, with or without its zone."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)).timestamp()
