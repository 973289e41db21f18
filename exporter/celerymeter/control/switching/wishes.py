"""What operators asked the monitoring to do, kept over restarts and shared by replicas of one state directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from celerymeter.control.store import Store

EventsWish = Literal["untouched", "on", "withdrawn"]

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS monitoring (
        id INTEGER PRIMARY KEY CHECK (id = 1), events TEXT NOT NULL, feed_on INTEGER NOT NULL, since REAL NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS monitoring_ours (hostname TEXT PRIMARY KEY, at REAL NOT NULL)",
)
FORGOTTEN = 7 * 86400.0
FRESH = 2.0
"""Seconds after which another replica's change is noticed."""


@dataclass(frozen=True, slots=True)
class Wish:
    """``since`` (UTC seconds) is when it was said last, or when the program started."""

    events: EventsWish
    feed_on: bool
    since: float


class Wishes:
    """Reads and writes the wish, and the workers whose task events we turned on. Raises `StateError`."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        store.declare(*SCHEMA)
        self._store = store
        self._clock = clock
        self._default = Wish("untouched", feed_on=True, since=clock())
        self._read_at = float("-inf")
        self._last = self._default
        self._said = False

    def get(self) -> Wish:
        """The wish, at most two seconds old."""
        if time.monotonic() - self._read_at > FRESH:
            self._keep(self._read())
        return self._last

    def say(self, *, events: EventsWish, feed_on: bool) -> Wish:
        """Change it; returns what it was before. Saying the same again changes nothing, ``since`` included."""
        before = self.get()
        same = self._said and (before.events, before.feed_on) == (events, feed_on)
        self.put(Wish(events, feed_on=feed_on, since=before.since if same else self._clock()))
        return before

    def put(self, wish: Wish) -> None:
        """Write it as it is."""
        with self._store.write() as connection:
            row = (wish.events, wish.feed_on, wish.since)
            connection.execute("INSERT OR REPLACE INTO monitoring VALUES (1, ?, ?, ?)", row)
        self._keep(wish)

    def ours(self) -> dict[str, float]:
        """Workers whose task events we turned on, and when."""
        return {row["hostname"]: row["at"] for row in self._store.read("SELECT hostname, at FROM monitoring_ours")}

    def add_ours(self, hostnames: Iterable[str], *, at: float) -> None:
        """We turned them on, and they said so again at ``at``; what was not heard of for a week is forgotten."""
        with self._store.write() as connection:
            connection.execute("DELETE FROM monitoring_ours WHERE at < ?", (at - FORGOTTEN,))
            connection.executemany("INSERT OR REPLACE INTO monitoring_ours VALUES (?, ?)", [(h, at) for h in hostnames])

    def drop_ours(self, hostnames: Iterable[str], *, before: float) -> None:
        """It was not us, or it is undone; what a replica wrote at or after ``before`` stays."""
        with self._store.write() as connection:
            rows = [(hostname, before) for hostname in hostnames]
            connection.executemany("DELETE FROM monitoring_ours WHERE hostname = ? AND at < ?", rows)

    def _read(self) -> Wish:
        rows = self._store.read("SELECT events, feed_on, since FROM monitoring")
        self._said = bool(rows)
        return Wish(rows[0]["events"], bool(rows[0]["feed_on"]), rows[0]["since"]) if rows else self._default

    def _keep(self, wish: Wish) -> None:
        self._last, self._read_at = wish, time.monotonic()
