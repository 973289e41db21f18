"""Looks at the exporter's page all the time, and notes what must not be."""

from __future__ import annotations

import statistics
import threading
from collections import defaultdict
from collections.abc import Sequence

import requests
from tests.scrape import Scrape
from tools.soak.cluster import Cluster

INTERVAL = 0.5
GROWTH = 10.0
"""MB that memory may differ between the second and the last quarter of an exporter's life."""
ENOUGH = 60
"""Samples of memory that can be judged."""


def fallen(before: Scrape, now: Scrape) -> list[str]:
    """The counters that fell between two pages of one life; a series that is gone has not fallen."""
    found = now.counters()
    return [
        f"{key} fell from {value} to {found[key]}"
        for key, value in before.counters().items()
        if found.get(key, value) < value
    ]


def quarters(samples: Sequence[float]) -> tuple[float, float] | None:
    """The medians of the second and of the last quarter; ``None`` for too few."""
    if len(samples) < ENOUGH:
        return None
    quarter = len(samples) // 4
    return statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])


class Watch:
    """Scrapes in a thread until it is left; ``problems`` are sentences."""

    def __init__(self, cluster: Cluster) -> None:
        self.problems: list[str] = []
        self.pages = 0
        self._cluster = cluster
        self._memory: dict[int, list[float]] = defaultdict(list)
        self._last: tuple[int, Scrape] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def judge_memory(self) -> str:
        """Return the memory of each exporter process in its second and last quarter, in words; growth is a problem."""
        lives = {life: medians for life, samples in self._memory.items() if (medians := quarters(samples))}
        for life, (early, late) in lives.items():
            if late - early > GROWTH:
                self.problems.append(f"memory grew from {early:.0f} to {late:.0f} MB in life {life}")
        if not lives:
            return "too short"
        second, last = (f"{min(each):.0f} to {max(each):.0f} MB" for each in zip(*lives.values(), strict=True))
        return f"{second}, at last {last}, in {len(lives)} lives"

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            generation = self._cluster.generation
            try:
                page = self._cluster.exporter.scrape()
                memory = self._cluster.memory()
            except (requests.RequestException, ValueError, OSError) as error:
                if not self._cluster.away.is_set():
                    self.problems.append(f"no page: {error}")
                continue
            if generation == self._cluster.generation:
                self._memory[generation].append(memory)
                self._take(generation, page)

    def _take(self, generation: int, page: Scrape) -> None:
        if self._last is not None and self._last[0] == generation:
            self.problems += fallen(self._last[1], page)
        self._last = (generation, page)
        self.pages += 1
