"""How many ids go into one command, so that no worker is kept from its work for long: learned from what they took."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 0.2
"""Seconds that a command may keep a worker: four batches at once stay below one second."""
FIRST: Final = 50
LEAST, MOST = 10, 250


class Pace:
    """An id costs a worker one to three round trips to its result backend, and it does nothing else meanwhile."""

    def __init__(self) -> None:
        self._size = FIRST

    @property
    def size(self) -> int:
        """Ids of the next command."""
        return self._size

    def took(self, ids: int, seconds: float | None) -> None:
        """A command of so many ids took so long at the slowest worker; None when no worker answered."""
        if ids < self._size:
            return  # a short one tells of the way there, not of the ids
        if seconds is None or seconds > LONGEST:
            self._size = max(ids // 2, LEAST)
        elif seconds < LONGEST / 2:
            self._size = min(2 * ids, MOST)
