"""Names that are to be tried again, each at its time: pauses double from half a second to half a minute."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
MAX_NAMES = 10_000


@dataclass(slots=True)
class _Retry:
    due: float
    pause: float = FIRST_PAUSE


class Retries:
    """Names that are due at a time; bounded, thread-safe. Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._retries: dict[str, _Retry] = {}
        self._lock = Lock()

    def add(self, name: str, due: float) -> None:
        """Make a name due from then on, with the shortest pause."""
        with self._lock:
            if name in self._retries or len(self._retries) < MAX_NAMES:
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
