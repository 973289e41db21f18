"""`make soak`: the exporter on a real cluster under load for half an hour, while one thing after another goes wrong.

``make soak ARGS="--minutes 3"`` is shorter, ``--gentle`` does only what loses no event: then none may be missed, for
an hour or as long as you like. With ``--mixed`` three of four workers count their tasks themselves, and after each
fault every counter of theirs must be what the workers' own records say. ``--record`` adds a row to ``RESULTS.md``.
Counters must never fall, pages always come, memory stay flat, and runs be missed only where events were really lost.
The exit status is 1 when something of that did not hold.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import redis
import requests
from tools.soak.cluster import AGGREGATING, Cluster
from tools.soak.faults import FAULTS, GENTLE, MIXED, RESTART, TIMEOUT, Fault
from tools.soak.truth import Judge, Truth
from tools.soak.watch import Watch

from celerymeter.demo.processes import wait_until
from celerymeter.errors import StartFailed

RESULTS = Path(__file__).with_name("RESULTS.md")
CALM = 12.0
"""Seconds after each fault: loss shows within two heartbeats and one poll."""
LOST = 2.0 + 1.5
"""Seconds before its death from which a worker's totals may be lost: one interval, and what a busy machine is late."""


class Soak:
    """One run, of so many seconds."""

    def __init__(self, cluster: Cluster, watch: Watch, seconds: float, *, faults: Sequence[Fault] = FAULTS) -> None:
        self.faults = 0
        self.missed = 0.0
        self._cluster, self._watch, self._seconds, self._repertoire = cluster, watch, seconds, faults
        exact = [hostname.partition("@")[0] for hostname in AGGREGATING]
        self.judge = Judge(Truth(cluster.truth), exact=exact, partial=cluster.queues) if cluster.mixed else None
        self._began = time.monotonic()
        self._printed = 0

    def run(self) -> None:
        """Fault after fault until the time is over; then all work must come to its end."""
        self._cluster.await_health()
        self._calm("the load begins")
        for fault in self._schedule():
            self._attempt(fault)
        self._cluster.stop_load()
        for name in ("celery_queue_length", "celery_task_in_progress", "celerymeter_events_unexplained"):
            self._must_become_zero(name)
        self._compare("the end")

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _schedule(self) -> Iterator[Fault]:
        restarted = False
        for fault in itertools.cycle(self._repertoire):
            if self._elapsed > self._seconds:
                return
            if self.judge is None and not restarted and self._elapsed > self._seconds / 2:
                restarted = True
                yield RESTART
            yield fault

    def _attempt(self, fault: Fault) -> None:
        try:
            self._inject(fault)
        except (TimeoutError, StartFailed, requests.RequestException, redis.RedisError) as error:
            self._watch.problems.append(f"{fault.name}: {error}")
        for problem in self._watch.problems[self._printed :]:
            print(problem, flush=True)
        self._printed = len(self._watch.problems)

    def _inject(self, fault: Fault) -> None:
        before, life = self._missed(), self._cluster.generation
        self.faults += 1
        self._cluster.fault_began = time.time()
        fault.cause(self._cluster)
        self._cluster.await_health()
        self._calm(fault.name)
        wait_until(lambda: self._sum("celerymeter_events_unexplained") == 0, timeout=TIMEOUT, interval=0.5)
        caused = self._missed() - (before if life == self._cluster.generation else 0)
        self.missed += caused
        if caused and not fault.lossy:
            self._watch.problems.append(f"{fault.name}: {caused:g} runs missed, though nothing was lost")
        with self._cluster.held_load():
            self._compare(fault.name)

    def _compare(self, what: str) -> None:
        """Compare the counters of aggregating workers with what these have really done; all tasks have ended."""
        if (judge := self.judge) is None:
            return
        for pid, at in self._cluster.deaths:
            judge.killed(pid, at - LOST)
        self._cluster.deaths.clear()
        with suppress(TimeoutError):
            wait_until(lambda: not judge.problems(self._cluster.exporter.scrape()), timeout=30, interval=0.5)
        page = self._cluster.exporter.scrape()
        problems = judge.problems(page)
        judge.accept(page)
        for hostname in AGGREGATING:
            missed = page.get("celerymeter_events_missed_total", hostname=hostname) or 0
            if missed > (lost := judge.lost_runs(hostname.partition("@")[0])):
                problems.append(f"{hostname}: {missed:g} runs missed, {lost} lost")
        self._watch.problems += [f"{what}: {problem}" for problem in problems]

    def _calm(self, what: str) -> None:
        end = time.monotonic() + CALM
        while time.monotonic() < end:
            self._show(what)
            time.sleep(1)

    def _must_become_zero(self, name: str) -> None:
        try:
            wait_until(lambda: self._sum(name) == 0, timeout=TIMEOUT, interval=0.5)
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


def record(soak: Soak, watch: Watch, *, kind: str, minutes: float, facts: Sequence[str]) -> None:
    """Add a row of this run to the results."""
    today, load = time.strftime("%Y-%m-%d"), f"{os.getloadavg()[2]:.0f}"
    cells = [today, load, kind, f"{minutes:g}", f"{soak.faults}", f"{soak.missed:,.0f}", *facts]
    outcome = "all held" if not watch.problems else "; ".join(dict.fromkeys(watch.problems))
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(f"| {' | '.join([*cells, outcome])} |\n")


def main() -> int:
    """Run, and say how it went."""
    parser = argparse.ArgumentParser(description="Hold the exporter against faults for a while.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: %(default)g)")
    parser.add_argument("--gentle", action="store_true", help="only what loses no event")
    parser.add_argument("--mixed", action="store_true", help="three of four workers count their tasks themselves")
    parser.add_argument("--record", action="store_true", help=f"add a row to {RESULTS.name}")
    chosen = parser.parse_args()
    faults = MIXED if chosen.mixed else GENTLE if chosen.gentle else FAULTS
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(Path(folder), mixed=chosen.mixed) as cluster,
        Watch(cluster) as watch,
    ):
        soak = Soak(cluster, watch, 60 * chosen.minutes, faults=faults)
        soak.run()
        memory = watch.judge_memory()
        compared = f", {soak.judge.compared}" if soak.judge is not None else ""
    problems = list(dict.fromkeys(watch.problems))
    facts = [f"{cluster.sent:,}{compared}", f"{watch.pages:,}", memory]
    print(f"\n{soak.faults} faults, {soak.missed:g} missed; tasks, pages, memory:", "; ".join(facts))
    print(*(problems[:50] or ["all held"]), sep="\n")
    if chosen.record:
        kind = "mixed" if chosen.mixed else "gentle" if chosen.gentle else "all faults"
        record(soak, watch, kind=kind, minutes=chosen.minutes, facts=facts)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
