"""Refusals folded by who is refused and by minute, lest strangers fill the disk. Pure: ``now`` is an argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

WINDOW = 60.0
"""Seconds over which refusals are folded."""
MAX_SOURCES = 100
"""Sources told apart in one minute; the others are counted as one."""
OTHER = "__other__"


@dataclass(frozen=True, slots=True)
class Source:
    """Who was refused what: an address, with the subject where a token was good but not enough."""

    address: str
    sub: str = ""
    jti: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class Folded:
    """Refusals of one source in one minute, after the first one, by reason."""

    source: Source
    reasons: dict[str, int]


@dataclass(slots=True)
class _Window:
    since: float
    reasons: Counter[str] = field(default_factory=Counter)


class RefusalFolder:
    """Says which refusal to write at once (a source's first of the minute) and counts those that follow."""

    def __init__(self) -> None:
        self._windows: dict[Source, _Window] = {}
        self._lock = Lock()

    def note(self, source: Source, reason: str, now: float) -> Source | None:
        """Count one refusal; the source to write it under now, or None when `drain` will give it."""
        with self._lock:
            if source not in self._windows and len(self._windows) >= MAX_SOURCES:
                source = Source(address=OTHER)
            window = self._windows.get(source)
            if window is not None:
                window.reasons[reason] += 1
                return None
            self._windows[source] = _Window(since=now)
            return source

    def drain(self, now: float, *, everything: bool = False) -> Sequence[Folded]:
        """What was counted in windows that have ended (in all, at the end of the program), and forget those."""
        with self._lock:
            ended = [key for key, window in self._windows.items() if everything or now - window.since >= WINDOW]
            windows = [(key, self._windows.pop(key)) for key in ended]
        return [Folded(source, dict(window.reasons)) for source, window in windows if window.reasons]
