"""The one thread loop of this program: the standard library has timers that run once, not every few seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from celerymeter.errors import CelerymeterError

log = logging.getLogger(__name__)

STOP_TIMEOUT = 2.0
ERROR_PAUSE = 1.0


class PeriodicThread:
    """Calls ``work`` every ``interval`` seconds until `stop`; an error is logged and counted and ends nothing.

    The interval counts from start to start. ``interval`` may be a function, which is asked after every run. `wake`
    starts the next run at once, except after an error: then at least ``error_pause`` seconds pass, lest a broken
    dependency be called in a tight loop.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        *,
        interval: float | Callable[[], float],
        first_delay: float = 0.0,
        error_pause: float = ERROR_PAUSE,
    ) -> None:
        self.name = name
        self.failures = 0
        """Runs that ended with an error."""
        self._work = work
        self._interval = interval if callable(interval) else lambda: interval
        self._first_delay = first_delay
        self._error_pause = error_pause
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; it cannot be started again."""
        self._thread.start()

    def wake(self) -> None:
        """Start the next run now."""
        self._wake.set()

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End the thread; a run under way is waited for at most ``timeout`` seconds and then left behind."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    @property
    def started(self) -> bool:
        """True once `start` was called."""
        return self._thread.ident is not None

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """True once `stop` was called; a long run may look at it to end early."""
        return self._stopping.is_set()

    def _run(self) -> None:
        self._rest(self._first_delay)
        while not self.stopping:
            began = time.monotonic()
            if not self._run_once():
                self._stopping.wait(self._error_pause)
            interval = self._interval()
            # A run that takes longer than its interval must not use up a core: a tenth of the interval is free.
            self._rest(max(began + interval - time.monotonic(), interval / 10))

    def _rest(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _run_once(self) -> bool:
        try:
            self._work()
        except CelerymeterError as error:
            log.warning("%s: %s", self.name, error)
        except Exception:  # the thread must outlive any bug in one run
            log.exception("%s: unexpected error", self.name)
        else:
            return True
        self.failures += 1
        return False
