"""A drill: faults are caused on a stage, and it is noted how long their alerts, and the ends of these, take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from tests.integration.alerts.stage import Stage

from celerymeter.demo.processes import wait_until


@dataclass(frozen=True, slots=True)
class Expected:
    """An alert that a fault must bring; ``labels`` besides its cluster."""

    fault: str
    cluster: str
    alert: str
    severity: str
    labels: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.fault


@dataclass(frozen=True, slots=True)
class Told:
    """Seconds from the cause to its notification, and from the mend to its end."""

    firing: float
    resolved: float


class Drill:
    """Causes and mends faults on a stage and keeps how long their alerts took."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.told: dict[Expected, Told] = {}
        self._firing: dict[Expected, float] = {}

    def arrives(self, *expected: Expected, since: float) -> None:
        """Wait until these fire."""
        for one in expected:
            self._firing[one] = self._await("firing", one, since)

    def ends(self, *expected: Expected, since: float) -> None:
        """Wait until these are resolved."""
        for one in expected:
            self.told[one] = Told(self._firing[one], self._await("resolved", one, since))

    def _await(self, status: str, one: Expected, since: float) -> float:
        labels = {"severity": one.severity, **dict(one.labels)}

        def times() -> list[float]:
            return [at for at in self.stage.heard(status, one.cluster, one.alert, **labels) if at > since]

        wait_until(times, timeout=self.stage.pace.patience, what=f"{one.fault}: {one.alert} {status}", interval=0.2)
        return min(times()) - since


Scripts: TypeAlias = Mapping[Callable[[Drill], None], tuple[Expected, ...]]
"""What causes and mends faults, and what must be heard of each."""


@dataclass(frozen=True)
class Outcome:
    """What came of each script."""

    drill: Drill
    ran: Mapping[Callable[[Drill], None], Future[None]]

    def of(self, script: Callable[[Drill], None], expected: Expected) -> Told:
        """How long one alert took; raises what ended its script when it was not heard, or not to the end."""
        if expected not in self.drill.told:
            self.ran[script].result()
        return self.drill.told[expected]


def outcomes(drill: Drill, scripts: Scripts) -> Outcome:
    """Run all scripts at once, each to its end or to its failure."""
    with ThreadPoolExecutor(len(scripts)) as pool:
        ran = {script: pool.submit(script, drill) for script in scripts}
    return Outcome(drill, ran)


def queue(name: str) -> tuple[tuple[str, str], ...]:
    """The label of a queue's alert."""
    return (("queue_name", name),)


def task(name: str) -> tuple[tuple[str, str], ...]:
    """The label of a task's alert."""
    return (("name", name),)


def host(name: str) -> tuple[tuple[str, str], ...]:
    """The label of a worker's alert."""
    return (("hostname", name),)


@contextmanager
def sending(send: Callable[[], object], *, every: float) -> Iterator[None]:
    """Send again and again while the block runs."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every):
            send()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
