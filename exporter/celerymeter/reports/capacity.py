"""The smallest number of slots that would have kept a queue's wait target: reads Prometheus, and replays the window.

Only the number of slots changes in the replay. The answer has bounds, because a scrape does not say when within its
interval a task arrived, nor which task ran how long: tasks evenly within each step, all at its beginning, and several
times at random.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import fmean, median_high

from celerymeter.prometheus import Matrix, Point, PrometheusClient, Scope
from celerymeter.prometheus.values import Series
from celerymeter.reports import queries
from celerymeter.reports.counting import WindowCounter, WindowCounts
from celerymeter.reports.increases import ScrapedSteps, Steps, increases_by_exporter
from celerymeter.reports.metrics import RUNTIME, WAIT, rounded
from celerymeter.reports.names import unknown_names
from celerymeter.reports.quality import DEFAULT_INTERVAL, interval, judge
from celerymeter.reports.replay import (
    Demand,
    Placement,
    count_arrivals,
    count_late,
    mean_run_times,
    place,
    shape_of,
    share_within,
    smallest_slots,
)
from celerymeter.reports.report import Note, TimeRange
from celerymeter.reports.request import Filters, Window, choose_scope, utc

HOUR = 3600.0
OBJECTIVE = 0.95
"""Share of tasks that start within the target, where the bundled rules record no other."""
MOST_STEPS = 50_000
CHUNK = 10_000
"""Steps in one query."""
MOST_TASKS = 5_000_000
"""Tasks that are replayed; each replay of a million takes about half a second."""
REPEATS = 5
REPEATED_TASKS = 200_000
"""So many replays with other random arrivals and orders of run times, where there are at most so many tasks."""
SAME = 0.02
"""The counter of sent tasks is used if it counts as many arrivals as the queue and the workers, within this share."""
BEYOND = 0.01
"""Share of run times beyond the last bucket from which they are mentioned."""
SHORT_WINDOW = 50.0
"""Mean run times that a window should have: tasks that ran at its start are not in the replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The slots that would have kept the target, and what they would have cost.

    What cannot be known is ``None``, and ``unknown`` has the reason by the name of the field.
    """

    queue_name: str
    cluster: str
    time_range: TimeRange
    wait_target_seconds: float
    objective_percent: float
    slots: int | None = None
    slots_at_least: int | None = None
    slots_at_most: int | None = None
    """The bounds of ``slots`` that come from the resolution."""
    tasks: int | None = None
    mean_run_seconds: float | None = None
    load_slots: float | None = None
    """Slots that the tasks kept busy on average: with fewer, the queue would only have grown."""
    present_slots: float | None = None
    present_slots_min: float | None = None
    present_slots_max: float | None = None
    present_slot_hours: float | None = None
    slot_hours: float | None = None
    saved_slot_hours: float | None = None
    """Negative if the target would have cost more than the slots that were there."""
    resolution_seconds: float | None = None
    arrivals_from: str | None = None
    """``sent``, the counter of sent tasks; or ``queue``, tasks that workers took and the growth of the queue."""
    measured_percent: float | None = None
    replayed_percent: float | None = None
    """Tasks that started within the target with the present slots: as measured, and as the replay says."""
    scrapes_present_percent: float | None = None
    """All slot hours are of the time that was scraped."""
    notes: tuple[Note, ...] = ()
    unknown: Mapping[str, Note]


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that was read for one queue; the steps are those of the demand."""

    counted: WindowCounts
    step: float
    counters: Mapping[str, Sequence[float]]
    state: Mapping[str, Sequence[float | None]]
    """With one value more: before the first step."""
    scraped: float
    """The share of the steps in which it is known what was counted."""


class CapacityPlanner:
    """Answers for one queue at a time; raises `PrometheusUnavailable`, `QueryRejected` and `AmbiguousCluster`."""

    def __init__(self, client: PrometheusClient, scope: Scope, window: Window) -> None:
        self._client = client
        self._window = window
        self._scope = choose_scope(client, scope, window)

    def target(self, queue: str) -> float | None:
        """Return the queue's wait target (s) as the bundled rules record it; ``None`` if nobody chose one."""
        return self._recorded(queries.WAIT_TARGETS, queue)

    def objective(self, queue: str) -> float:
        """Return the share of tasks that should start within the target."""
        return self._recorded(queries.WAIT_OBJECTIVES, queue) or OBJECTIVE

    def _recorded(self, query: str, queue: str) -> float | None:
        return self._client.instant(self._scope.render(query), time=self._window.end).by("queue_name").get(queue)

    def capacity(
        self,
        queue: str,
        *,
        target: float,
        objective: float,
        slots: int | None = None,
        most_tasks: int = MOST_TASKS,
    ) -> Capacity:
        """Return the slots that the queue needed in the window; more than ``most_tasks`` are not replayed.

        ``replayed_percent`` is of these ``slots``, by default of the present ones.
        """
        window = self._window
        empty = Capacity(
            queue_name=queue,
            cluster=self._scope.cluster or "",
            time_range=TimeRange(utc(window.start), utc(window.end), window.seconds, window.assumed_zone, ""),
            wait_target_seconds=target,
            objective_percent=rounded(100 * objective),
            unknown={},
        )
        filters = Filters(queue=queue)
        counter = WindowCounter(self._client, self._scope, filters=filters)
        counted = counter.count(start=window.start, end=window.end)
        if counted.counts is None:
            found = _unknown(empty, "base_missing" if counted.without_base else "no_scrapes")
        else:
            found = answer(empty, self._observe(queue, counted), slots=slots, most_tasks=most_tasks)
        if found.unknown.get("slots") == Note("nothing_arrived"):
            for note in unknown_names(self._client, self._scope, window, filters):
                found = replace(found, unknown={**found.unknown, "slots": note})
        return _judged(found, counted, window)

    def _observe(self, queue: str, counted: WindowCounts) -> Observed:
        every = interval(counted.processes) or DEFAULT_INTERVAL
        step = max(1.0, math.ceil(max(every, self._window.seconds / MOST_STEPS)))
        start, end = (math.ceil(self._window.start / step) * step, math.floor(self._window.end / step) * step)
        wanted = {**queries.DEMAND, **queries.QUEUE_STATE, "processes": queries.PROCESSES}
        reach = timedelta(seconds=2 * step)
        found = {
            key: self._range(self._scope.render(query, queue=queue, window=reach), start=start, end=end, step=step)
            for key, query in wanted.items()
        }
        times = [start + number * step for number in range(round((end - start) / step) + 1)]
        scraped = ScrapedSteps.read(found["processes"], first=start, step=step)
        counters = {key: _counter(found[key], scraped) for key in queries.DEMAND}
        state = {
            key: {point.at: point.value for one in found[key] for point in one.points} for key in queries.QUEUE_STATE
        }
        return Observed(
            counted,
            step,
            {key: [steps.get(at, 0.0) for at in times[1:]] for key, steps in counters.items()},
            {key: [values.get(at) for at in times] for key, values in state.items()},
            len(scraped.known_steps().intersection(times[1:])) / max(1, len(times) - 1),
        )

    def _range(self, query: str, *, start: float, end: float, step: float) -> Matrix:
        """Return the answer of a range that is longer than one query may be."""
        points: dict[tuple[tuple[str, str], ...], list[Point]] = defaultdict(list)
        at = start
        while at <= end:
            until = min(end, at + CHUNK * step)
            for series in self._client.range(query, start=at, end=until, step=step):
                points[tuple(sorted(series.labels.items()))].extend(series.points)
            at = until + step
        return Matrix(tuple(Series(dict(labels), tuple(found)) for labels, found in points.items()))


def _counter(matrix: Matrix, scraped: ScrapedSteps) -> Steps:
    """Return a counter's increases by step: of the exporter that counted most, and of others where it was away."""
    found: Steps = {}
    for steps in sorted(increases_by_exporter(matrix, scraped).values(), key=lambda steps: sum(steps.values())):
        found.update(steps)
    return found


def answer(empty: Capacity, seen: Observed, *, slots: int | None = None, most_tasks: int = MOST_TASKS) -> Capacity:
    """Return the answer for what was observed. Pure."""
    counts = seen.counted.counts
    runs = sum(seen.counters["started"])
    if counts is None or not seen.scraped:
        return _unknown(empty, "too_few_scrapes")
    source, arrivals, removed = _arrivals(seen)
    if not sum(arrivals):
        return _unknown(_with_slots(empty, seen), "nothing_arrived")
    if not runs or not sum(seen.counters["busy"]):
        return _unknown(_with_slots(empty, seen), "no_run_times")
    runtimes, waits = (_buckets(seen.counted, family) for family in (f"{RUNTIME}_bucket", f"{WAIT}_bucket"))
    means = mean_run_times(seen.counters["busy"], seen.counters["started"])
    demand = Demand(seen.step, arrivals, means, shape_of(runtimes))
    made = replace(
        _with_slots(empty, seen),
        tasks=demand.tasks,
        mean_run_seconds=rounded(sum(seen.counters["busy"]) / runs),
        load_slots=rounded(demand.load / seen.scraped),
        resolution_seconds=seen.step,
        arrivals_from=source,
        measured_percent=_percent(share_within(waits, empty.wait_target_seconds)),
    )
    if demand.tasks > most_tasks:
        return _unknown(made, "too_many_tasks")
    return _with_notes(_replayed(made, demand, seen, compared=slots), seen, removed=removed, runtimes=runtimes)


def _arrivals(seen: Observed) -> tuple[str, list[int], int]:
    """Return where the arrivals are from, the arrivals by step, and how many were never taken by a worker."""
    taken = seen.counters["taken"]
    if sum(taken) < sum(seen.counters["started"]) / 2:
        taken = seen.counters["started"]
    arrivals, removed = count_arrivals(taken, seen.state["length"], step=seen.step)
    waiting = round(seen.state["length"][0] or 0.0)
    sent = [round(count) for count in seen.counters["sent"]]
    if abs(sum(sent) + waiting - sum(arrivals)) <= SAME * sum(arrivals):
        sent[0] += waiting
        return "sent", sent, removed
    return "queue", arrivals, removed


def _replayed(made: Capacity, demand: Demand, seen: Observed, *, compared: int | None) -> Capacity:
    """Return the answer with the slots of the replay."""
    target, objective = made.wait_target_seconds, made.objective_percent / 100
    tasks = place(demand, "random")
    found = [smallest_slots(tasks, target=target, objective=objective, start=math.ceil(demand.load))]
    others: list[tuple[Placement, int]] = [("even", 0), ("together", 0)]
    others += [("random", seed) for seed in range(1, REPEATS)] if demand.tasks <= REPEATED_TASKS else []
    for placement, seed in others:
        placed = place(demand, placement, seed=seed)
        found.append(smallest_slots(placed, target=target, objective=objective, start=found[0]))
    slots = median_high([found[0], *found[3:]])
    hours = slots * _scraped_seconds(made, seen) / HOUR
    present = made.present_slots_min if made.present_slots_min == made.present_slots_max else None
    replayed = None
    if compared is None and present and "saved_slot_hours" not in made.unknown:
        compared = round(present)
    if compared is not None:
        replayed = 1 - count_late(tasks, slots=compared, target=target) / demand.tasks
    saved = None if made.present_slot_hours is None else rounded(made.present_slot_hours - hours)
    return replace(
        made,
        slots=slots,
        slots_at_least=min(found),
        slots_at_most=max(found),
        slot_hours=rounded(hours),
        saved_slot_hours=None if "saved_slot_hours" in made.unknown else saved,
        replayed_percent=_percent(replayed),
    )


def _with_slots(made: Capacity, seen: Observed) -> Capacity:
    """Return the answer with the slots that the queue had, where they are known."""
    slots = [value for value in seen.state["slots"] if value is not None]
    unknown = dict(made.unknown)
    if not slots:
        unknown.update(dict.fromkeys(("present_slots", "saved_slot_hours", "replayed_percent"), Note("slots_unknown")))
        return replace(made, unknown=unknown)
    if _shared(seen):
        unknown.update(dict.fromkeys(("saved_slot_hours", "replayed_percent"), Note("slots_shared")))
    elif min(slots) != max(slots):
        unknown["replayed_percent"] = Note("slots_changed")
    present = fmean(slots)
    is_missing = len(slots) < 0.9 * seen.scraped * len(seen.state["slots"])
    return replace(
        made,
        notes=(*made.notes, Note("slots_missing")) if is_missing else made.notes,
        present_slots=rounded(present),
        present_slots_min=min(slots),
        present_slots_max=max(slots),
        present_slot_hours=rounded(present * _scraped_seconds(made, seen) / HOUR),
        unknown=unknown,
    )


def _scraped_seconds(made: Capacity, seen: Observed) -> float:
    """Return how much of the window was scraped."""
    return made.time_range.seconds * seen.scraped


def _shared(seen: Observed) -> bool:
    """Return True if the workers of the queues have fewer slots than all queues together: some consume several."""
    pairs = zip(seen.state["all_queue_slots"], seen.state["all_slots"], strict=True)
    differences = [of_queues - of_workers for of_queues, of_workers in pairs if of_queues and of_workers]
    return bool(differences) and fmean(differences) >= 1.0


def _with_notes(made: Capacity, seen: Observed, *, removed: int, runtimes: Mapping[float, float]) -> Capacity:
    """Return the answer with what limits the replay."""
    waiting = seen.state["length"][0] or 0.0
    slowest = runtimes.get(math.inf, 0.0) - max((n for bound, n in runtimes.items() if bound < math.inf), default=0.0)
    limits = {
        "resolution_coarse": seen.step > made.wait_target_seconds,
        "length_unknown": all(length is None for length in seen.state["length"]),
        "messages_removed": removed > SAME * (made.tasks or 0),
        "tasks_scheduled": any(seen.state["scheduled"]),
        "backlog_at_start": waiting > SAME * (made.tasks or 0),
        "long_runs": runtimes and slowest > BEYOND * runtimes[max(runtimes)],
        "window_short": (made.mean_run_seconds or 0.0) * SHORT_WINDOW > _scraped_seconds(made, seen),
    }
    return replace(made, notes=(*made.notes, *(Note(code) for code, applies in limits.items() if applies)))


def _judged(made: Capacity, counted: WindowCounts, window: Window) -> Capacity:
    """Return the answer with what limits the data; a time without scrapes is left out, other than in a report."""
    quality = judge(counted, window, made.notes)
    notes = (Note("time_left_out") if note.code == "scrapes_missing" else note for note in quality.notes)
    return replace(made, notes=tuple(notes), scrapes_present_percent=quality.scrapes_present_percent)


def _buckets(counted: WindowCounts, family: str) -> dict[float, float]:
    """Return the cumulative buckets of a family, each task's once."""
    buckets: dict[float, float] = defaultdict(float)
    for key, value in counted.counts.values.items() if counted.counts else ():
        if key.family == family and key.name:
            buckets[float(key.le)] += value
    return dict(buckets)


def _unknown(made: Capacity, code: str) -> Capacity:
    """Return the answer with a reason why the slots are unknown."""
    return replace(made, unknown={**made.unknown, "slots": Note(code)})


def _percent(share: float | None) -> float | None:
    return None if share is None else rounded(100 * share)
