"""Names to which something is to be sent again, after pauses that double."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Final

from celerymeter.control.live_workers import MAX_WORKERS

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0


@dataclass(slots=True)
class _Retry:
    due: float
    pause: float = FIRST_PAUSE


class Retries:
    """The workers to which something is to be sent again, each at its time: its pauses double. Bounded, thread-safe.

    Times are in seconds of the caller's clock.
    """

    def __init__(self) -> None:
        self._retries: dict[str, _Retry] = {}
        self._lock = Lock()

    def add(self, name: str, due: float) -> None:
        """Make a name due from then on, with the shortest pause."""
        with self._lock:
            if name in self._retries or len(self._retries) < MAX_WORKERS:
                self._retries[name] = _Retry(due)

    def take(self, now: float) -> tuple[str, ...]:
        """Return the names that are due; each must be settled."""
        with self._lock:
            return tuple(name for name, retry in self._retries.items() if retry.due <= now)

    def settle(self, name: str, *, done: bool, now: float) -> None:
        """Remove a name that is done; make any other due again after its pause, which doubles."""
        with self._lock:
            if done:
                self._retries.pop(name, None)
                return
            retry = self._retries.setdefault(name, _Retry(now))
            retry.due = now + retry.pause
            retry.pause = min(2 * retry.pause, LONGEST_PAUSE)

    def pause(self, now: float, *, longest: float) -> float:
        """Return the seconds until the next name is due, at most ``longest``."""
        with self._lock:
            soonest = min((retry.due for retry in self._retries.values()), default=now + longest)
        return min(max(soonest - now, 0.0), longest)
