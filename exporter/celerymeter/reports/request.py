"""A report request: the window, parsed from text, and filters."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo

from celerymeter.errors import ReportRefused
from celerymeter.prometheus import PrometheusClient, Scope, choose_cluster
from celerymeter.prometheus.scope import Value

MAX_SECONDS = 366 * 86_400.0
_RELATIVE = re.compile(r"-(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def utc(at: float) -> datetime:
    """Return UTC seconds as a time."""
    return datetime.fromtimestamp(at, timezone.utc)


@dataclass(frozen=True, slots=True)
class Window:
    """``(start, end]`` in UTC seconds; ``assumed_zone`` is set when a time was given without one."""

    start: float
    end: float
    assumed_zone: str | None = None

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


def choose_scope(client: PrometheusClient, scope: Scope, window: Window) -> Scope:
    """Return the scope narrowed to the only cluster that was scraped in the window; raises `AmbiguousCluster`."""
    return choose_cluster(client, scope, time=window.end, window=timedelta(seconds=window.seconds))


ANY = "(?s:.*)"
"""Matches every label value; in Prometheus before 3 a dot alone matches no line break."""


@dataclass(frozen=True, slots=True)
class Filters:
    """The only task and the only queue of the report; ``None`` is all of them."""

    task: str | None = None
    queue: str | None = None

    def slots(self) -> dict[str, Value]:
        """Return the values of the slots ``$name`` and ``$queue`` of queries: exactly this task or queue, or any."""
        return {
            "name": ANY if self.task is None else (self.task,),
            "queue": ANY if self.queue is None else (self.queue,),
        }


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Everything that a report depends on, besides Prometheus and the cluster."""

    window: Window
    filters: Filters = field(default_factory=Filters)
    language: str = "en"


def read_window(
    start: str,
    end: str,
    *,
    now: float,
    zone: tzinfo | None = None,
    names: tuple[str, str] = ("start", "end"),
) -> Window:
    """Return the window between two ISO 8601 times, or times relative to ``now`` such as ``-24h`` and ``now``.

    A time without a zone is in ``zone`` (default: this machine's). Raises `ReportRefused`, which calls them ``names``.
    """
    begins, begins_bare = _read_time(start, names[0], now, zone)
    ends, ends_bare = _read_time(end, names[1], now, zone)
    if ends <= begins:
        raise ReportRefused("end_before_start", f"{names[1]} must be later than {names[0]}")
    if begins >= now:
        raise ReportRefused("window_in_future", "the window lies in the future")
    if ends - begins > MAX_SECONDS:
        raise ReportRefused("window_too_long", "a report covers at most 366 days")
    assumed = _zone_name(begins, zone) if begins_bare or ends_bare else None
    return Window(begins, min(ends, now), assumed)


def _read_time(text: str, field: str, now: float, zone: tzinfo | None) -> tuple[float, bool]:
    """Return UTC seconds, and whether the text had no zone."""
    text = text.strip()
    if text == "now":
        return now, False
    if relative := _RELATIVE.fullmatch(text):
        return now - float(relative[1]) * _UNITS[relative[2]], False
    try:
        time = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
    except ValueError:
        raise ReportRefused(
            "time_malformed", f"{field}: use an ISO 8601 time such as 2026-01-31T12:00:00+08:00, or -24h, or now"
        ) from None
    bare = time.tzinfo is None
    if bare:
        time = time.replace(tzinfo=zone) if zone is not None else time.astimezone()
    try:
        return time.timestamp(), bare
    except (OverflowError, OSError):
        raise ReportRefused("time_malformed", f"{field}: out of range") from None


def _zone_name(at: float, zone: tzinfo | None) -> str:
    time = utc(at).astimezone(zone)
    return f"{time.tzname()} ({time.strftime('%z')})"
