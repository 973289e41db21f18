"""`make soak`: the exporter on a real cluster under load for half an hour, while one thing after another goes wrong.

``make soak ARGS="--minutes 3"`` is shorter. Counters must never fall, pages always come, memory stay flat, and runs be
missed only where events were really lost. The exit status is 1 when something of that did not hold.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import requests
from tests.soak.cluster import Cluster
from tests.soak.faults import FAULTS, RESTART, Fault
from tests.soak.watch import Watch

from celerymeter.demo.processes import wait_until

CALM = 12.0
"""Seconds after each fault: loss shows within two heartbeats and one poll."""


class Soak:
    """One run, of so many seconds."""

    def __init__(self, cluster: Cluster, watch: Watch, seconds: float) -> None:
        self.faults = 0
        self._cluster, self._watch, self._seconds = cluster, watch, seconds
        self._began = time.monotonic()

    def run(self) -> None:
        """Fault after fault until the time is over; then all work must come to its end."""
        self._cluster.await_health()
        self._calm("the load begins")
        for fault in self._schedule():
            self._attempt(fault)
        self._cluster.stop_load()
        for name in ("celery_queue_length", "celery_task_in_progress", "celerymeter_events_unexplained"):
            self._must_become_zero(name)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _schedule(self) -> Iterator[Fault]:
        restarted = False
        for fault in itertools.cycle(FAULTS):
            if self._elapsed > self._seconds:
                return
            if not restarted and self._elapsed > self._seconds / 2:
                restarted = True
                yield RESTART
            yield fault

    def _attempt(self, fault: Fault) -> None:
        try:
            self._inject(fault)
        except (TimeoutError, requests.RequestException) as error:
            self._watch.problems.append(f"{fault.name}: {error}")

    def _inject(self, fault: Fault) -> None:
        before, life = self._missed(), self._cluster.generation
        self.faults += 1
        fault.cause(self._cluster)
        self._cluster.await_health()
        self._calm(fault.name)
        caused = self._missed() - (before if life == self._cluster.generation else 0)
        if caused and not fault.lossy:
            self._watch.problems.append(f"{fault.name}: {caused:g} runs missed, though nothing was lost")

    def _calm(self, what: str) -> None:
        end = time.monotonic() + CALM
        while time.monotonic() < end:
            self._show(what)
            time.sleep(1)

    def _must_become_zero(self, name: str) -> None:
        try:
            wait_until(lambda: self._sum(name) == 0, timeout=120, interval=0.5)
        except TimeoutError:
            self._watch.problems.append(f"{name} is {self._sum(name):g} at the end")

    def _sum(self, name: str) -> float:
        return self._cluster.exporter.scrape().sum(name)

    def _missed(self) -> float:
        return self._sum("celerymeter_events_missed_total")

    def _show(self, what: str) -> None:
        minutes, seconds = divmod(int(self._elapsed), 60)
        line = (
            f"{minutes:3d}:{seconds:02d} of {self._seconds / 60:g} min  {self.faults} faults  {what:<26}"
            f"{self._cluster.sent:8,} tasks  {self._missed():5.0f} missed  {self._watch.pages:6,} pages"
            f"  {self._cluster.memory():4.0f} MB  {len(self._watch.problems)} problems"
        )
        if sys.stdout.isatty():
            print(f"\r{line}", end="", flush=True)
        elif seconds % 10 == 0:
            print(line, flush=True)


def main() -> int:
    """Run, and say how it went."""
    parser = argparse.ArgumentParser(description="Hold the exporter against faults for a while.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: %(default)g)")
    seconds = 60 * parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster, Watch(cluster) as watch:
        soak = Soak(cluster, watch, seconds)
        soak.run()
        memory = watch.judge_memory()
    problems = list(dict.fromkeys(watch.problems))
    print(f"\n{soak.faults} faults, {cluster.sent:,} tasks, {watch.pages:,} pages", *memory, sep="; ")
    print(*(problems[:50] or ["all held"]), sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
