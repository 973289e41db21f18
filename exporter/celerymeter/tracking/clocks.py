"""Clock offsets: how far another host's clock is from ours, from the quickest of its recent messages."""

from __future__ import annotations

HALF_WINDOW = 10.0
"""Seconds of one generation: an offset rests on the last 10 to 20 s, so a clock that was stepped is believed soon."""


class _Offset:
    __slots__ = ("current", "previous", "since")

    def __init__(self, sample: float, at: float) -> None:
        self.current = self.previous = sample
        self.since = at


class ClockOffsets:
    """Receipt minus timestamp, minimum over a sliding window, for at most ``2 * limit`` senders.

    Feed it only with messages that are sent at once (heartbeats, `task-sent`): buffered ones arrive late by design.
    The estimate is too high by the quickest message's travel time, about a millisecond on a local network.
    """

    def __init__(self, limit: int = 5000) -> None:
        self._limit = limit
        self._young: dict[str, _Offset] = {}
        self._old: dict[str, _Offset] = {}

    def observe(self, sender: str, *, timestamp: float, at: float) -> float:
        """One message of ``sender``, stamped ``timestamp`` by its clock and received ``at`` by ours; the new offset."""
        sample = at - timestamp
        known = self._find(sender)
        if known is None:
            self._admit(sender, _Offset(sample, at))
            return sample
        age = at - known.since
        if not 0 <= age < HALF_WINDOW:
            known.previous = known.current if 0 <= age < 2 * HALF_WINDOW else sample
            known.current, known.since = sample, at
        elif sample < known.current:
            known.current = sample
        return known.current if known.current < known.previous else known.previous

    def get(self, sender: str) -> float | None:
        """Seconds to add to the sender's clock to have ours; ``None`` for a stranger."""
        known = self._find(sender)
        return None if known is None else min(known.current, known.previous)

    def _find(self, sender: str) -> _Offset | None:
        known = self._young.get(sender)
        if known is None and (known := self._old.pop(sender, None)) is not None:
            self._admit(sender, known)
        return known

    def _admit(self, sender: str, offset: _Offset) -> None:
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        self._young[sender] = offset

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
