"""Whether operators want task events and the feed, and the workers whose task events we turned on, over restarts."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import TypeAdapter

from celerymeter.control.live_workers import MAX_WORKERS
from celerymeter.control.store import Store, Time
from celerymeter.escaping import MAX_NAME

DesiredEvents = Literal["untouched", "on", "withdrawn"]

_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS monitoring (
        id INTEGER PRIMARY KEY CHECK (id = 1), events TEXT NOT NULL, feed_on INTEGER NOT NULL, since REAL NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS monitoring_ours (hostname TEXT PRIMARY KEY, at REAL NOT NULL)",
)
_REMEMBERED_FOR: Final = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class DesiredState:
    """The state that operators asked for, ``since`` then (UTC seconds) or since the program started."""

    events: DesiredEvents
    feed_on: bool
    since: Time


_STATE: Final = TypeAdapter(DesiredState)


class DesiredStateStore:
    """The desired state, and the workers whose task events we turned on, kept over restarts. Raises `StateError`."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        store.declare(*_TABLES)
        self._store = store
        self._clock = clock
        query = "SELECT events, feed_on = 1 AS feed_on, since FROM monitoring LIMIT 1"
        found = store.load("monitoring", _desired, query)
        self._stored = bool(found)
        self._state = found[0] if found else DesiredState("untouched", feed_on=True, since=clock())

    def get(self) -> DesiredState:
        """Return the desired state."""
        return self._state

    def change(self, *, events: DesiredEvents, feed_on: bool) -> DesiredState:
        """Change it and return what it was. Asking for the same again changes nothing, ``since`` included."""
        before = self._state
        same = self._stored and (before.events, before.feed_on) == (events, feed_on)
        self.put(DesiredState(events, feed_on=feed_on, since=before.since if same else self._clock()))
        return before

    def put(self, state: DesiredState) -> None:
        """Write it as it is."""
        with self._store.write() as connection:
            row = (state.events, state.feed_on, state.since)
            connection.execute("INSERT OR REPLACE INTO monitoring VALUES (1, ?, ?, ?)", row)
        self._state, self._stored = state, True

    def enabled_by_us(self) -> tuple[str, ...]:
        """Return the workers whose task events we turned on."""
        query = "SELECT hostname FROM monitoring_ours LIMIT ?"
        return tuple(self._store.load("monitoring_ours", _hostname, query, (MAX_WORKERS,)))

    def add_enabled(self, hostnames: Iterable[str], *, at: float) -> None:
        """We turned these on at ``at``, and they confirmed it; those that did not for a week are forgotten."""
        with self._store.write() as connection:
            connection.execute("DELETE FROM monitoring_ours WHERE at < ?", (at - _REMEMBERED_FOR,))
            connection.executemany("INSERT OR REPLACE INTO monitoring_ours VALUES (?, ?)", [(h, at) for h in hostnames])

    def forget_enabled(self, hostnames: Iterable[str], *, before: float) -> None:
        """These are off again; one that confirmed at or after ``before`` stays."""
        with self._store.write() as connection:
            rows = [(hostname, before) for hostname in hostnames]
            connection.executemany("DELETE FROM monitoring_ours WHERE hostname = ? AND at < ?", rows)


def _desired(row: sqlite3.Row) -> DesiredState:
    return _STATE.validate_python({"events": row["events"], "feed_on": bool(row["feed_on"]), "since": row["since"]})


def _hostname(row: sqlite3.Row) -> str:
    if not isinstance(row["hostname"], str) or len(row["hostname"]) > MAX_NAME:
        raise ValueError("no worker has this name")
    return row["hostname"]
