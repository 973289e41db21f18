"""Counts the task runs of a worker whose events never arrived, from the worker's own count in its heartbeats.

``processed`` in a heartbeat grows by one where `task-started` is sent, and each event carries the worker's logical
clock (`celery.worker.heartbeat`, `celery.worker.request`). So for heartbeat n, judged when heartbeat n + 1 arrives,

    D(n) = processed(n) - started events of that worker whose clock is below the clock of heartbeat n

is constant while nothing is lost. The first D is the baseline; the shortfall is the growth of min(D(n), D(n + 1)).

In a pool of threads or greenlets a run is counted in ``processed``, its message is acknowledged, and only then comes
its `task-started` (`celery.worker.request.Request.on_accepted`); a heartbeat may be sent in between. With gevent under
load 3 of 9 heartbeats were. So what may be in between is taken off D, except for the baseline.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

SILENT_BEATS = 3
"""Heartbeats with work but without any task event, after which a worker's task events count as turned off."""
LAG = 3
"""Heartbeats after which a run that was begun shows in the shortfall."""
MAX_MARKS = 1000
"""Starts that may wait for a heartbeat which does not come (``--without-heartbeat``)."""

DOUBT = 60.0
"""Seconds for which a silent process that aggregates may come back with all that it has done."""


class LossMeter:
    """The account of one worker, in task runs.

    ``shortfall`` is what is missing, ``explained`` the part that never sends events (``send_events=False``),
    ``missed`` what was lost and never falls. The rest is unexplained until the worker has answered `inspect stats`.
    What happened while task events were turned off cannot be known and is not counted: ``off`` is true then.
    """

    def __init__(self) -> None:
        self.shortfall = 0
        self.explained = 0
        self.missed = 0
        self.off = False
        self._certain = 0
        self._asked = 0
        self._counted = 0
        self._recent: list[int] = []
        """Clocks of the starts that came since the last judgement."""
        self._later: list[int] = []
        """A heap of those that were not below the clock of a heartbeat: no judgement looks at one twice."""
        self._last: tuple[int, int, int] | None = None
        self._baseline: int | None = None
        self._previous: int | None = None
        """At least so many of the deficit have no `task-started` on its way."""
        self._deficit = 0
        self._silent_used = 0
        """Silent runs of this process that have explained a missing one; none explains two."""
        self._silent_totals: dict[str, int] | None = None
        """As of an answer: all that was begun before it is in the shortfall, or is growth since then."""
        self._answers: list[tuple[int, dict[str, int]]] = []
        """Those since the baseline, until one is old enough for that, each with `_beats` at that time."""
        self._beats = 0
        """Heartbeats that left no doubt whether task events are on."""
        self.hearing = False
        """True if a task event arrived since the last heartbeat; further ones change nothing until the next."""
        self._ever_heard = False
        self._silent_beats = 0
        self._settling = 0
        self.aggregated = False
        """True if the worker sends totals: they carry their own account, and its task events are not counted."""

    @property
    def unexplained(self) -> int:
        """Task runs without events that are not yet known to be lost."""
        return max(0, self.shortfall - self.explained - self.missed)

    def started(self, clock: int) -> None:
        """A `task-started` of this worker arrived."""
        self._recent.append(clock)

    @property
    def marks(self) -> int:
        """Starts that wait for the heartbeat after them."""
        return len(self._recent) + len(self._later)

    def heard(self) -> bool:
        """A task event of this worker arrived, the first since its last heartbeat; return whether it counts."""
        if self.aggregated:
            return False
        if self.off or not self._ever_heard:
            self._settling = 2
        self._ever_heard = self.hearing = True
        self.off = False
        return True

    def aggregate(self) -> None:
        """The worker sends totals instead of task events from now on."""
        self.restart()
        self.aggregated = True

    def lose(self, count: int) -> None:
        """So many runs are missing in the totals of the worker."""
        self.shortfall += count
        self.missed += count

    def restart(self) -> None:
        """The worker is a new process, or sends no heartbeats: its counts begin anew, what was missed stays."""
        self._counted = self._silent_used = 0
        self._recent.clear()
        self._later.clear()
        self._last = self._baseline = self._previous = None
        self._forget_answers()
        self._ever_heard = self._ever_heard and not self.off  # a new process is configured as the one before
        self.hearing = self.off = self.aggregated = False
        self._silent_beats = 0

    def heartbeat(self, *, processed: int, clock: int, beginning: int = 0) -> None:
        """A heartbeat arrived; judges the one before it. Of so many runs the start may be counted, but not yet sent."""
        if self.aggregated:
            return
        if self._last is not None:
            self._judge(*self._last)
            self._watch(processed - self._last[0])
        self._last = (processed, clock, beginning)

    def _judge(self, processed: int, clock: int, beginning: int) -> None:
        recent, self._recent = self._recent, []
        for mark in recent:
            if mark < clock:
                self._counted += 1
            else:
                heappush(self._later, mark)
        while self._later and self._later[0] < clock:
            heappop(self._later)
            self._counted += 1
        deficit = processed - self._counted
        if self._baseline is None or not self._ever_heard or self._settling > 0:
            self._settling = max(0, self._settling - 1)
            self._rebase(deficit)
        elif self._previous is not None:
            self.shortfall = max(self.shortfall, min(deficit - beginning, self._previous) - self._baseline)
        self._previous, self._deficit = deficit - beginning, deficit

    def _rebase(self, deficit: int) -> None:
        self._baseline = deficit - self.shortfall
        self._forget_answers()

    def _forget_answers(self) -> None:
        self.explained = min(self.explained, self.shortfall - self.missed)
        self._silent_totals = None
        self._answers.clear()

    def _watch(self, work: int) -> None:
        """Tell lost events from events turned off: those stay away however long the worker works."""
        self._silent_beats = 0 if self.hearing or work <= 0 else self._silent_beats + 1
        self.hearing = False
        if self._silent_beats == 0:
            self._certain = self.shortfall
            self._beats += 1
        elif self._silent_beats >= SILENT_BEATS or not self._ever_heard:
            self.off = self._silent_beats >= SILENT_BEATS
            self.shortfall = self._certain
            self._rebase(self._deficit)

    @property
    def has_question(self) -> bool:
        """True if runs are missing that were not when `inspect stats` was last asked."""
        return self._certain > self._asked

    def ask(self) -> None:
        """Note that `inspect stats` is being asked: its answer may explain what is missing up to now."""
        self._asked = self._certain

    def explain(self, totals: Mapping[str, int], *, heard_names: Collection[str]) -> None:
        """Take the worker's totals by task name: growth of names never received is silent, not lost."""
        silent = {name: count for name, count in totals.items() if name not in heard_names}
        unused = max(0, sum(silent.values()) - self._silent_used)
        if self._silent_totals is not None:
            growth = sum(max(0, count - self._silent_totals.get(name, 0)) for name, count in silent.items())
            found = min(growth, unused)  # an answer since the one referred to may have explained some of it already
            self._silent_totals = silent
        else:
            found = max(0, min(self._asked - self.missed - self.explained, unused))
            self._refer(silent)
        self.explained += found
        self._silent_used += found
        self.missed = max(self.missed, self._asked - self.explained)

    def _refer(self, silent: dict[str, int]) -> None:
        """Choose the newest answer whose silent runs are all in the shortfall by now; it replaces the others."""
        if self._answers and self._answers[-1][0] == self._beats:
            self._answers.pop()
        self._answers.append((self._beats, silent))
        while self._answers and self._answers[0][0] <= self._beats - LAG:
            self._silent_totals = self._answers.pop(0)[1]
        if self._silent_totals is not None:
            self._answers.clear()


@dataclass(frozen=True, slots=True)
class _Doubt:
    """So many runs of a process may be missing."""

    meter: LossMeter
    runs: int
    since: float


class Doubts:
    """Processes that aggregate, are silent, and had begun more runs than their totals had.

    The totals of one that comes back within `DOUBT` have all that it did: its worker was cut off, or two processes
    have one node name. What others had begun is missed. ``now`` is of `celerymeter.tracking.clocks.SteadyTime`.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_instance: dict[str, _Doubt] = {}
        """The oldest first."""

    def add(self, instance: str, meter: LossMeter, runs: int, now: float) -> None:
        """Nothing more may come of this process, whose worker has this account."""
        self.heard(instance)
        meter.shortfall += runs
        self._by_instance[instance] = _Doubt(meter, runs, now)
        if len(self._by_instance) > self._limit:
            self._miss(next(iter(self._by_instance)))

    def heard(self, instance: str) -> None:
        """Totals of this process have come."""
        if (doubt := self._by_instance.pop(instance, None)) is not None:
            doubt.meter.shortfall -= doubt.runs

    def judge(self, now: float) -> None:
        """Take what is in doubt for too long for missed."""
        for instance in [one for one, doubt in self._by_instance.items() if now - doubt.since >= DOUBT]:
            self._miss(instance)

    def _miss(self, instance: str) -> None:
        doubt = self._by_instance.pop(instance)
        doubt.meter.missed += doubt.runs
