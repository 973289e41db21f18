"""The state of a scenario at a time: what is up, and how much has happened so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from zlib import crc32

from tests.dashboards.scenarios import ONSET_AGO, STARTED_AGO, Scenario

_WAVE = 1800.0
"""Seconds from one busy time to the next."""


@dataclass(frozen=True, slots=True)
class ScenarioState:
    """The "ago" of a scenario is before ``reference_time``; counters are functions of ``now`` alone."""

    scenario: Scenario
    reference_time: float
    now: float

    @property
    def started(self) -> float:
        """The start of the exporter."""
        return self.reference_time - STARTED_AGO

    @property
    def fault_seconds(self) -> float:
        """Seconds since the fault began; 0 before it."""
        return max(0.0, self.now - (self.reference_time - ONSET_AGO))

    @property
    def broker_down(self) -> bool:
        """True while the broker is out of reach, so that no event arrives and no poll succeeds."""
        return self.scenario.broker_down and self.fault_seconds > 0

    @property
    def exporter_down(self) -> bool:
        """True while the exporter does not answer."""
        return self.scenario.exporter_gone and self.fault_seconds > 0

    @property
    def has_live_worker(self) -> bool:
        """True while any worker is up."""
        return any(map(self.up, self.scenario.workers))

    @property
    def working(self) -> float:
        """Seconds during which tasks ran."""
        idle = self.broker_down or not self.has_live_worker
        return self.now - self.started - (self.fault_seconds if idle else 0.0)

    def up(self, worker: str) -> bool:
        """Return whether this worker sends heartbeats."""
        return not (worker in self.scenario.lost and self.fault_seconds > 0)

    def count(self, key: str, rate: float) -> float:
        """Events since the start at ``rate`` per second on average; each key has busy times of its own."""
        phase, scale = crc32(key.encode()) % 628 / 100, _WAVE / math.tau
        wave = 0.5 * scale * (math.cos(phase) - math.cos(self.working / scale + phase))
        return float(math.floor(rate * max(0.0, self.working + wave)))

    def runs(self, rate: float = 1.0) -> float:
        """Runs of all tasks since the start, times ``rate``."""
        return math.floor(rate * sum(self.count(task.name, task.rate) for task in self.scenario.tasks))

    def wobble(self, key: str, level: float) -> float:
        """A gauge around ``level`` that changes within minutes."""
        period = 120 + crc32(key.encode()) % 240
        return max(0.0, round(level * (1 + 0.6 * math.sin(self.now / period * math.tau))))
