"""Plays a recorded workload through the tracker, and compares its page with the truth.

``python -m tools.celery_workload.replay FOLDER``, where `make celery-workload` has left events and notes. Nobody asks
the workers here what they run; otherwise this is what the exporter did, in seconds instead of half an hour.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tests.scrape import Scrape, text_of
from tools.celery_workload.recorder import ARRIVED
from tools.celery_workload.truth import compare, find_truth

from celerymeter.exposition.page import Page
from celerymeter.exposition.scrape import Build
from celerymeter.model import Event, WorkersSnapshot, WorkerState
from celerymeter.settings import BrokerSettings, ExporterSettings
from celerymeter.tracking.tracker import Tracker

AFTERWARDS = 60
"""Seconds that pass after the last event, so that nothing waits any more."""


def replay(events: Sequence[dict[str, Any]], queues: tuple[str, ...]) -> Scrape:
    """Return the page after these events, which come when they came, of workers that consume these queues."""
    began = last = _arrival(events[0])
    tracker = Tracker(ExporterSettings(broker=BrokerSettings(url="redis://localhost")), now=began)
    tracker.connected(began)
    for recorded in events:
        at = max(last, _arrival(recorded))
        _pass_time(tracker, last, at)
        known = tracker.workers.get(recorded["hostname"]) is not None
        tracker.apply([msgspec.convert(recorded, Event)], at)
        if not known and (worker := tracker.workers.get(recorded["hostname"])) is not None:
            state = WorkerState(hostname=worker.hostname, queues=queues)
            tracker.inspected(WorkersSnapshot(at=at, workers={worker.hostname: state}))
        last = at
    _pass_time(tracker, last, last + AFTERWARDS)
    page = Page(tracker, build=Build("", "", ""))
    return Scrape(text_of(page, last + AFTERWARDS))


def _arrival(event: dict[str, Any]) -> float:
    return float(event.get(ARRIVED, event["timestamp"]))


def _pass_time(tracker: Tracker, since: float, now: float) -> None:
    for second in range(int(since) + 1, int(now) + 1):
        tracker.tick(float(second))


def wrong_tasks(
    events: Sequence[dict[str, Any]], notes: Sequence[dict[str, Any]], queues: tuple[str, ...]
) -> Iterator[str]:
    """Yield the ids of tasks that are wrong by themselves too."""
    by_task: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = defaultdict(lambda: ([], []))
    for number, lines in enumerate((events, notes)):
        for line in lines:
            if line.get("uuid"):
                by_task[line["uuid"]][number].append(line)
    for uuid, (own, noted) in by_task.items():
        if own and compare(replay(own, queues), find_truth(own, noted)):
            yield uuid


def main() -> int:
    """Replay the folder; 1 when something is wrong."""
    folder = Path(sys.argv[1])
    events, notes = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("events.jsonl", "notes.jsonl")
    )
    queues = tuple(sorted({note["queue"] for note in notes}))
    differences = compare(replay(events, queues), find_truth(events, notes))
    for difference in differences:
        print(f"WRONG {difference}")
    if differences:
        print("tasks that are wrong by themselves:", *wrong_tasks(events, notes, queues))
    print(f"{len(events)} events, {len(differences)} wrong")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
