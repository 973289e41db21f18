"""Sends a worker's heartbeats and totals over HTTP, where its broker carries no events (SQS, for one).

A thread of the worker's main process posts them every two seconds, also while a solo worker runs a task. At most one
message is under way and none waits: totals are cumulative, so the next one has everything.
"""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

from celery.utils.sysinfo import load_average
from celery.worker import state as worker_state

from celerymeter.aggregate.dispatcher import TOTALS, dispatcher_event
from celerymeter.aggregate.member import Member, Options
from celerymeter.threads import PeriodicThread

log = logging.getLogger(__name__)

INTERVAL = 2.0
LONGEST_PAUSE = 60.0
TIMEOUT = (3.0, 5.0)
"""Seconds to connect, and to wait for the reply."""
LAST_TIMEOUT = (1.0, 2.0)
"""The same when the worker stops: its shutdown must not wait for us."""


class Pusher:
    """Pushes from `start` to `stop`; a failure is logged when it begins and when it ends."""

    def __init__(self, member: Member, worker: Any, options: Options) -> None:
        """``worker`` is Celery's `WorkController` (untyped)."""
        import requests  # needed by workers that push, and by no others

        self._errors = requests.RequestException
        self._session = requests.Session()
        self._member = member
        self._worker = worker
        self._url = options.push_url or ""
        self._token_file = options.token_file
        if self._token_file is not None:  # else requests sends what ~/.netrc has for the host instead of the token
            self._session.auth = lambda request: request
        self._pause = INTERVAL
        self._failing = False
        self._online = False
        self._last: Any = None
        """The dispatcher that was used last: a worker that stops has none."""
        self._thread = PeriodicThread(
            "celerymeter push", self._push, interval=lambda: self._pause, first_delay=INTERVAL
        )

    def start(self) -> None:
        """Begin to push."""
        self._thread.start()

    def stop(self) -> None:
        """Push for the last time: the worker has stopped."""
        self._thread.stop(LAST_TIMEOUT[0])
        if self._online:
            self._post(["worker-heartbeat", TOTALS, "worker-offline"], timeout=LAST_TIMEOUT, final=True)

    def _push(self) -> None:
        if self._dispatcher() is None:
            return
        first = "worker-heartbeat" if self._online else "worker-online"
        sent = self._post([first, TOTALS], timeout=TIMEOUT)
        self._online = self._online or sent
        if sent:
            self._pause = INTERVAL
        else:
            self._member.send_all_next()
            self._pause = min(LONGEST_PAUSE, 2 * self._pause) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def _dispatcher(self) -> Any:
        """Return the worker's event dispatcher; ``None`` while it has none."""
        return getattr(getattr(self._worker, "consumer", None), "event_dispatcher", None) or self._last

    def _post(self, kinds: list[str], *, timeout: tuple[float, float], final: bool = False) -> bool:
        dispatcher = self._last = self._dispatcher()
        body = json.dumps([self._event(dispatcher, kind, final=final) for kind in kinds])
        try:
            reply = self._session.post(self._url, body, headers=self._headers(), timeout=timeout, allow_redirects=False)
            problem = None if reply.ok else f"status {reply.status_code}"
        except (self._errors, OSError) as error:  # OSError: the file with the token cannot be read
            problem = type(error).__name__
        if (problem is not None) != self._failing:
            self._failing = problem is not None
            log.warning("celerymeter: pushing totals %s", f"fails: {problem}" if problem else "works again")
        return problem is None

    def _event(self, dispatcher: Any, kind: str, *, final: bool) -> dict[str, Any]:
        if kind == TOTALS:
            return dispatcher_event(dispatcher, kind, {"totals": self._member.message(final=final)})
        heartbeat = {
            "freq": INTERVAL,
            "active": len(worker_state.active_requests),
            "processed": worker_state.all_total_count[0],
            "loadavg": load_average(),
            **worker_state.SOFTWARE_INFO,
        }
        return dispatcher_event(dispatcher, kind, heartbeat)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {Path(self._token_file).read_text(encoding='utf-8').strip()}"
        return headers
