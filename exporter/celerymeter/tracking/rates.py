"""Throughput and error ratio over a sliding window, for people who read the page with their eyes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from celerymeter.tracking.series import Pair

STEPS = 12


class RateWindow:
    """Samples every pair's totals twelve times a window; a new pair counts from 0."""

    def __init__(self, window: float, now: float) -> None:
        self._window = window
        self._samples: deque[tuple[float, dict[Pair, tuple[int, int]]]] = deque([(now, {})])

    def sample(self, pairs: Iterable[Pair], now: float) -> None:
        """Remember the totals, if a step has passed."""
        newest = self._samples[-1][0]
        if 0 <= now - newest < self._window / STEPS:
            return
        if now < newest:
            self._samples.clear()
        self._samples.append((now, {pair: (pair.finished, pair.failed) for pair in pairs if pair.finished}))
        while len(self._samples) > 1 and now - self._samples[1][0] >= self._window:
            self._samples.popleft()

    def of(self, pair: Pair, now: float) -> tuple[float, float | None]:
        """Finished per second, and the failed share (``None`` when nothing finished in the window)."""
        since, totals = self._samples[0]
        finished, failed = totals.get(pair, (0, 0))
        ended = pair.finished - finished
        rate = ended / max(now - since, 1.0)
        return rate, (pair.failed - failed) / ended if ended > 0 else None
