"""Measures how long it takes from a fault to its notification, and from the repair to the message that it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from tests.integration.alerts.monitored import MonitoredClusters

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
class NotificationTimes:
    """Seconds from the fault to its notification, and from the repair to the message that it is over."""

    firing: float
    resolved: float


class AlertTimer:
    """Waits for the alerts of faults and records how long they took; without ``to_the_end`` only until they fire."""

    def __init__(self, monitored: MonitoredClusters, *, to_the_end: bool = True) -> None:
        self.monitored = monitored
        self._to_the_end = to_the_end
        self.times: dict[Expected, NotificationTimes] = {}
        self.firing: dict[Expected, float] = {}

    def arrives(self, *expected: Expected, since: float) -> None:
        """Wait until these fire."""
        for one in expected:
            self.firing[one] = self._await("firing", one, since)

    def resolves(self, *expected: Expected, since: float) -> None:
        """Wait until these are resolved."""
        for one in expected if self._to_the_end else ():
            self.times[one] = NotificationTimes(self.firing[one], self._await("resolved", one, since))

    def _await(self, status: str, one: Expected, since: float) -> float:
        labels = {"severity": one.severity, **dict(one.labels)}

        def times() -> list[float]:
            return [at for at in self.monitored.heard(status, one.cluster, one.alert, **labels) if at > since]

        wait_until(times, timeout=self.monitored.pace.timeout, what=f"{one.fault}: {one.alert} {status}", interval=0.2)
        return min(times()) - since


Scripts: TypeAlias = Mapping[Callable[[AlertTimer], None], tuple[Expected, ...]]
"""Scripts that cause and repair faults, with the alerts that must arrive for each."""


@dataclass(frozen=True)
class Outcome:
    """The result of each script."""

    timer: AlertTimer
    ran: Mapping[Callable[[AlertTimer], None], Future[None]]

    def of(self, script: Callable[[AlertTimer], None], expected: Expected) -> NotificationTimes:
        """Return how long one alert took; raises what ended its script when it was not heard, or not to the end."""
        if expected not in self.timer.times:
            self.ran[script].result()
        return self.timer.times[expected]


def outcomes(timer: AlertTimer, scripts: Scripts) -> Outcome:
    """Run all scripts at once, each to its end or to its failure."""
    with ThreadPoolExecutor(len(scripts)) as pool:
        ran = {script: pool.submit(script, timer) for script in scripts}
    return Outcome(timer, ran)


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
