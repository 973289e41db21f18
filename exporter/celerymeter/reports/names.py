"""Names of tasks and queues that somebody chose and Prometheus does not have, and names like them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from difflib import get_close_matches

from celerymeter.prometheus import PrometheusClient, Scope
from celerymeter.reports import queries
from celerymeter.reports.report import Note
from celerymeter.reports.request import SOME, Filters, Window

RECENT = timedelta(hours=1)
"""Similar names are searched in the end of the window; older ones would cost much."""
LIKE = 3
"""Similar names that are listed at most."""


def unknown_names(client: PrometheusClient, scope: Scope, window: Window, filters: Filters) -> tuple[Note, ...]:
    """Return a note for the chosen task, and for the chosen queue, if Prometheus has none of its name in the window.

    Ask it only where nothing was counted: for a name that is busy it reads much.
    """
    chosen = (
        ("task_unknown", "name", filters.task, queries.TASK_NAMES),
        ("queue_unknown", "queue_name", filters.queue, queries.QUEUE_NAMES),
    )
    notes = []
    for code, label, name, query in chosen:
        if name is None:
            continue
        length = timedelta(seconds=window.seconds)
        if not client.instant(scope.render(query, window=length, chosen=(name,)), time=window.end):
            recent = scope.render(query, window=min(length, RECENT), chosen=SOME)
            names = (sample.label(label) for sample in client.instant(recent, time=window.end))
            notes.append(Note(code, names=similar(name, names)))
    return tuple(notes)


def similar(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the few names that are most like a name, whatever their case.

    >>> similar("Orders", ["mail", "orders", "orders-eu"])
    ('orders', 'orders-eu')
    """
    folded: dict[str, list[str]] = defaultdict(list)
    for one in sorted(names):
        folded[one.casefold()].append(one)
    matches = get_close_matches(name.casefold(), folded, n=LIKE)
    return tuple(one for match in matches for one in folded[match])[:LIKE]
