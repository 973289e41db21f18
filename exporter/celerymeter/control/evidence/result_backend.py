"""The cluster's result backend, asked about many tasks at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from celery import Celery
from celery.backends.base import BaseKeyValueStoreBackend

from celerymeter.errors import SettingsError
from celerymeter.settings import BrokerSettings
from celerymeter.urls import without_password

LOOKUP_TIMEOUT: Final = 1.0

log = logging.getLogger(__name__)


class ResultBackend:
    """A key-value result backend, asked by one MGET; raises `SettingsError` for one of another kind."""

    def __init__(self, url: str, broker: BrokerSettings) -> None:
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

    def states(self, task_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the stored states; what cannot be read now is left out."""
        if not task_ids:
            return {}
        try:
            stored = self._backend.mget([self._backend.get_key_for_task(task_id) for task_id in task_ids])
        except Exception as error:  # noqa: BLE001 - every backend has errors of its own; other evidence must do
            log.warning("the result backend does not answer (%s)", type(error).__name__)
            return {}
        found = {task_id: self._state(value) for task_id, value in zip(task_ids, stored, strict=False) if value}
        return {task_id: state for task_id, state in found.items() if state}

    def _state(self, value: Any) -> str | None:
        try:
            meta = self._backend.decode(value)
        except Exception:  # noqa: BLE001 - not JSON, or compressed: it says nothing
            return None
        status = meta.get("status") if isinstance(meta, dict) else None
        return status if isinstance(status, str) else None


def open_result_backend(url: str | None, broker: BrokerSettings) -> ResultBackend | None:
    """Return the configured backend, if any; raises `SettingsError`."""
    return ResultBackend(url, broker) if url else None
