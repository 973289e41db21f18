"""A fault that the sender of tasks cannot cause: beat is frozen for a while."""

from __future__ import annotations

import signal
from collections.abc import Callable

from celerymeter.demo.processes import Process

FREEZE_EVERY = 600.0
FREEZE_AFTER, FREEZE_UNTIL = 60.0, 240.0
"""Seconds in each period: long enough for CeleryBeatDown, which takes some 90 s."""


def is_frozen(elapsed: float) -> bool:
    """Return True while beat should stand still, so many seconds after the demo's start."""
    return FREEZE_AFTER <= elapsed % FREEZE_EVERY < FREEZE_UNTIL


class FrozenBeat:
    """Stops and continues a process (SIGSTOP, SIGCONT), as a host does that has no memory or disk left."""

    def __init__(self, process: Process, say: Callable[[str], None]) -> None:
        self._process = process
        self._say = say
        self._frozen = False

    def tick(self, elapsed: float) -> None:
        """Freeze it or let it go on, if it is time to."""
        wanted = is_frozen(elapsed)
        if wanted != self._frozen and self._process.running:
            self._frozen = wanted
            self._process.signal(signal.SIGSTOP if wanted else signal.SIGCONT)
            self._say("beat is frozen for three minutes" if wanted else "beat goes on")

    def thaw(self) -> None:
        """Let it go on, so that it can end."""
        if self._frozen:
            self._process.signal(signal.SIGCONT)
