"""Who is to be told again, and when: pauses double from half a second to half a minute."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

FIRST = 0.5
LONGEST = 30.0
MOST = 10_000


@dataclass(slots=True)
class _Waiting:
    due: float
    pause: float = FIRST


class Retries:
    """Names that are due at a time; bounded, thread-safe. Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._lock = Lock()

    def add(self, name: str, due: float) -> None:
        """This one is due from then on, and patience begins anew."""
        with self._lock:
            if name in self._waiting or len(self._waiting) < MOST:
                self._waiting[name] = _Waiting(due)

    def take(self, now: float) -> tuple[str, ...]:
        """Those that are due; each must be settled."""
        with self._lock:
            return tuple(name for name, waiting in self._waiting.items() if waiting.due <= now)

    def settle(self, name: str, *, done: bool, now: float) -> None:
        """It is done with, or comes again after its pause, which doubles."""
        with self._lock:
            if done:
                self._waiting.pop(name, None)
                return
            waiting = self._waiting.setdefault(name, _Waiting(now))
            waiting.due = now + waiting.pause
            waiting.pause = min(2 * waiting.pause, LONGEST)

    def pause(self, now: float, *, longest: float) -> float:
        """Seconds until the next one is due, at most ``longest``."""
        with self._lock:
            soonest = min((waiting.due for waiting in self._waiting.values()), default=now + longest)
        return min(max(soonest - now, 0.0), longest)
