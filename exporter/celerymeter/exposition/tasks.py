"""Task families: the many; one pass over the pairs for each family, from label text that is made once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from celerymeter import metrics as m
from celerymeter.exposition.compat import NamedFailures
from celerymeter.exposition.text import Text, fill, histogram_template, labels
from celerymeter.metrics import Family
from celerymeter.tracking.series import Histogram, Pair
from celerymeter.tracking.tracker import Tracker

_COUNTERS: tuple[tuple[Family, Callable[[Pair], int]], ...] = (
    (m.TASK_SENT, lambda pair: pair.sent),
    (m.TASK_RECEIVED, lambda pair: pair.received),
    (m.TASK_STARTED, lambda pair: pair.started),
    (m.TASK_SUCCEEDED, lambda pair: pair.succeeded),
    (m.TASK_FAILED, lambda pair: pair.failed),
    (m.TASK_RETRIED, lambda pair: pair.retried),
)


class TaskPage:
    """Keeps what never changes of each pair: its label text and its histogram templates."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._names = (*m.TASK, "hostname") if tracker.settings.task_hostname_label else m.TASK
        self._tags: dict[Pair, str] = {}
        self._templates: dict[tuple[str, Pair], str] = {}
        self._named = NamedFailures() if tracker.settings.compat else None

    def render(self, text: Text, now: float) -> None:
        """All task families."""
        pairs = list(self._tracker.pairs)
        tags = [self._tag(pair) for pair in pairs]
        for family, number in _COUNTERS:
            text.head(family)
            if family is m.TASK_FAILED and self._named is not None:
                self._failed_by_class(text, pairs, self._named, now)
            else:
                text.column(family, tags, map(number, pairs))
        self._ends(text, pairs, tags)
        text.values(m.TASK_ACCEPTED, dict(self._tracker.workers.accepted))
        self._exceptions(text, pairs)
        self._histogram(text, m.TASK_RUNTIME, pairs, lambda pair: pair.runtime)
        self._failed_runtime(text, pairs, tags)
        self._histogram(text, m.TASK_WAIT, pairs, lambda pair: pair.wait)
        self._running(text, pairs, tags)
        text.values(m.TASK_LAST_SUCCESS, dict(self._tracker.tasks.last_success))
        self._rates(text, pairs, now)
        if self._named is not None:
            self._histogram(text, m.COMPAT_RUNTIME, pairs, lambda pair: pair.runtime)
            self._histogram(text, m.COMPAT_WAIT, pairs, lambda pair: pair.wait)

    def _tag(self, pair: Pair) -> str:
        tag = self._tags.get(pair)
        if tag is None:
            tag = self._tags[pair] = labels(self._names, pair.labels)
        return tag

    def _ends(self, text: Text, pairs: list[Pair], tags: list[str]) -> None:
        text.head(m.TASK_REJECTED)
        text.column(m.TASK_REJECTED, tags, (pair.rejected_requeued for pair in pairs), ',requeue="true"')
        text.column(m.TASK_REJECTED, tags, (pair.rejected_end for pair in pairs), ',requeue="false"')
        text.head(m.TASK_REVOKED)
        text.column(m.TASK_REVOKED, tags, (pair.revoked for pair in pairs), ',reason="revoked"')
        text.column(m.TASK_REVOKED, tags, (pair.revoked_terminated for pair in pairs), ',reason="terminated"')
        text.column(m.TASK_REVOKED, tags, (pair.revoked_expired for pair in pairs), ',reason="expired"')

    def _exceptions(self, text: Text, pairs: list[Pair]) -> None:
        text.head(m.TASK_EXCEPTIONS)
        for pair in pairs:
            raised = Counter(pair.exceptions) + Counter(pair.retry_exceptions) if pair.retry_exceptions else None
            self._by_class(text, m.TASK_EXCEPTIONS, pair, raised or pair.exceptions)

    def _failed_by_class(self, text: Text, pairs: list[Pair], named: NamedFailures, now: float) -> None:
        for pair in pairs:
            counts = named.of(pair, now)
            text.add(f"{m.TASK_FAILED.name}{{{self._tag(pair)}}} {pair.failed - sum(counts.values())}\n")
            self._by_class(text, m.TASK_FAILED, pair, counts)

    def _by_class(self, text: Text, family: Family, pair: Pair, counts: Mapping[str, int]) -> None:
        for exception, count in counts.items():
            tag = f"{self._tag(pair)},{labels(('exception',), (exception,))}"
            text.add(f"{family.name}{{{tag}}} {count}\n")

    def _histogram(self, text: Text, family: Family, pairs: list[Pair], of: Callable[[Pair], Histogram]) -> None:
        text.head(family)
        templates = self._templates
        for pair in pairs:
            histogram = of(pair)
            template = templates.get((family.name, pair))
            if template is None:
                template = histogram_template(family.name, self._tag(pair), histogram.bounds)
                templates[family.name, pair] = template
            text.add(fill(template, histogram))

    def _failed_runtime(self, text: Text, pairs: list[Pair], tags: list[str]) -> None:
        name = m.TASK_FAILED_RUNTIME.name
        text.head(m.TASK_FAILED_RUNTIME)
        for pair, tag in zip(pairs, tags, strict=True):
            text.add(
                f"{name}_sum{{{tag}}} {pair.failed_runtime_sum!r}\n{name}_count{{{tag}}} {pair.failed_runtime_count}\n"
            )

    def _running(self, text: Text, pairs: list[Pair], tags: list[str]) -> None:
        text.head(m.TASK_IN_PROGRESS)
        text.column(m.TASK_IN_PROGRESS, tags, (len(pair.running) for pair in pairs))
        text.head(m.TASK_OLDEST_START)
        for pair, tag in zip(pairs, tags, strict=True):
            if (run := next(iter(pair.running), None)) is not None and run.started is not None:
                offset = self._tracker.workers.offset_of(run.worker or "") or 0.0
                text.add(f"{m.TASK_OLDEST_START.name}{{{tag}}} {run.started + offset!r}\n")

    def _rates(self, text: Text, pairs: list[Pair], now: float) -> None:
        rates = [self._tracker.rates.of(pair, now) for pair in pairs]
        tags = [self._tag(pair) for pair in pairs]
        text.head(m.TASK_THROUGHPUT)
        text.column(m.TASK_THROUGHPUT, tags, (rate for rate, _ in rates))
        known = [(tag, ratio) for tag, (_, ratio) in zip(tags, rates, strict=True) if ratio is not None]
        text.head(m.TASK_ERROR_RATIO)
        text.column(m.TASK_ERROR_RATIO, [tag for tag, _ in known], (ratio for _, ratio in known))
