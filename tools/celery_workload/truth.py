"""The right counts of a workload: of what came over the wire, by the names that the workers knew."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.scrape import Scrape

Key = tuple[str, str]
"""A task's name and its queue."""
STEPS = ("sent", "received", "started", "succeeded", "failed", "retried", "rejected", "revoked")
_ENDS = ("task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked")
IN_PROGRESS = "celery_task_in_progress"
MUST_BE_ZERO = (
    IN_PROGRESS,
    "celery_task_ended_without_result_total",
    "celerymeter_tracked_tasks_evicted_total",
    "celerymeter_events_missed_total",
    "celerymeter_events_invalid_total",
)


@dataclass(frozen=True)
class Truth:
    """``types`` are events by type, ``steps`` are events by task; ``lost`` never left the workers, by type.

    Of the ends of one run only the first is in ``steps``, as of `task-failed` and `task-rejected` only the failure.
    """

    types: Counter[str] = field(default_factory=Counter)
    steps: dict[str, Counter[Key]] = field(default_factory=lambda: {step: Counter() for step in STEPS})
    lost: Counter[str] = field(default_factory=Counter)
    doubtful_starts: int = 0
    """Starts of tasks that were replaced under their id and of which some were lost: no event says whose they were."""
    repeated: int = 0
    """Messages that came to a worker without having been sent for that: a producer may publish one twice, unsaid."""


def find_truth(events: Sequence[dict[str, Any]], notes: Iterable[dict[str, Any]]) -> Truth:
    """Count recorded events; ``notes`` are the lines of `tools.celery_workload.notes`."""
    notes = list(notes)
    kinds, doubtful = Counter(event["type"] for event in events), _doubtful_starts(events, notes)
    truth = Truth(kinds, doubtful_starts=doubtful, repeated=_repeated(events))
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for note, arrived in _matched(events, notes):
        if arrived:
            runs[note["run"]].append(note)
        else:
            truth.lost[note["type"]] += 1
    for event in events:
        if event["type"] == "task-sent":
            truth.steps["sent"][event["name"], _queue(event)] += 1
    for run in runs.values():
        for note in _counted(run):
            truth.steps[note["type"].removeprefix("task-")][note["name"], note["queue"]] += 1
    return truth


def _matched(
    events: Sequence[dict[str, Any]], notes: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield each note, and whether its event arrived; of several of the same task those nearest in time did."""
    stamps: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    for event in events:
        stamps[event["type"], event.get("uuid")].append(event.get("timestamp", 0.0))
    noted: dict[tuple[str, str | None], list[dict[str, Any]]] = defaultdict(list)
    for note in notes:
        noted[note["type"], note["uuid"]].append(note)
    for key, missing in noted.items():
        complete = len(stamps[key]) >= len(missing)
        for stamp in () if complete else stamps[key]:
            nearest = min(missing, key=lambda note: abs(note.get("at", 0.0) - stamp))
            missing.remove(nearest)
            yield nearest, True
        yield from ((note, complete) for note in missing)


def _doubtful_starts(events: Iterable[dict[str, Any]], notes: Iterable[dict[str, Any]]) -> int:
    arrived = Counter(event.get("uuid") for event in events if event["type"] == "task-started")
    names: dict[str, list[str]] = defaultdict(list)
    for note in notes:
        if note["type"] == "task-started":
            names[note["uuid"]].append(note["name"])
    return sum(
        arrived[uuid] for uuid, several in names.items() if arrived[uuid] < len(several) and len(set(several)) > 1
    )


def _repeated(events: Iterable[dict[str, Any]]) -> int:
    """Count what was received more often than it was sent or requeued."""
    balance: Counter[str] = Counter()
    for event in events:
        if event["type"] == "task-received":
            balance[event["uuid"]] += 1
        elif event["type"] == "task-sent" or event.get("requeue"):
            balance[event["uuid"]] -= 1
    return sum(more for more in balance.values() if more > 0)


def _queue(sent: dict[str, Any]) -> str:
    return sent.get("queue") or (sent["routing_key"] if sent.get("exchange") == "" else "unknown")


def _counted(run: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """The events of a run that count for its task; one that a worker revokes on receipt has no `task-received`."""
    yield from (note for note in run if note["type"] in ("task-received", "task-started") or note["requeue"])
    ends = [note for note in run if note["type"] in _ENDS and not note["requeue"]]
    yield from ({**note, "type": "task-received"} for note in ends if ends == run and note["type"] == "task-revoked")
    yield from sorted(ends, key=lambda note: note["type"] == "task-rejected")[:1]


@dataclass(frozen=True)
class Difference:
    """A figure on the page that is not the right one."""

    what: str
    found: float
    right: float

    def __str__(self) -> str:
        return f"{self.what}: {self.found:g} on the page, {self.right:g} is right"


def compare(page: Scrape, truth: Truth, *, stands_still: bool = False) -> list[Difference]:
    """Return all that is wrong on the page; what a worker runs that stands still is rightly in progress."""
    found = {"events": page.by("celerymeter_events_total", "event")}
    right: dict[str, dict[tuple[str, ...], float]] = {
        "events": {(kind,): float(count) for kind, count in truth.types.items() if kind.startswith("task-")}
    }
    found["events"] = {key: count for key, count in found["events"].items() if key[0].startswith("task-")}
    for step in STEPS:
        found[step] = page.by(f"celery_task_{step}_total", "name", "queue_name")
        right[step] = {key: float(count) for key, count in truth.steps[step].items()}
    differences = [
        Difference(" ".join((what, *key)), found[what].get(key, 0), right[what].get(key, 0))
        for what in right
        for key in sorted(found[what].keys() | right[what].keys())
        if found[what].get(key, 0) != right[what].get(key, 0)
    ]
    if 0 < _moved(started := [one for one in differences if one.what.startswith("started ")]) <= truth.doubtful_starts:
        differences = [one for one in differences if one not in started]
    again = Difference("celery_task_redelivered_total", page.sum("celery_task_redelivered_total"), truth.repeated)
    if again.found > again.right:
        differences.append(again)
    if not truth.lost:
        zeros = [name for name in MUST_BE_ZERO if name != IN_PROGRESS or not stands_still]
        return differences + [Difference(name, page.sum(name), 0) for name in zeros if page.sum(name)]
    # Without its end a run is said to have vanished, which is right; without its start it is missed.
    missed = Difference(
        "celerymeter_events_missed_total", page.sum("celerymeter_events_missed_total"), truth.lost["task-started"]
    )
    return differences + ([missed] if missed.found > missed.right else [])


def left_over(page: Scrape, truth: Truth) -> int:
    """Return how many messages wait where the worker took others: more than 0 at the end say that it stands still.

    Celery 5.3 and 5.4 wait for themselves when the garbage collector finds a result while another one is forgotten
    (celery #10477): `AsyncResult.__del__` wants the lock of redis-py 5.3 that the same thread holds.
    """
    queues = {queue for _, queue in truth.steps["received"]}
    return int(sum(page.get("celery_queue_length", queue_name=queue) or 0 for queue in queues))


def _moved(differences: Iterable[Difference]) -> float:
    """Return how many were counted under another name, or 0 if not as many are missing as are too many."""
    signed = [difference.found - difference.right for difference in differences]
    return 0 if sum(signed) else sum(map(abs, signed)) / 2
