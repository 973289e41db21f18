"""A report request: the window, parsed from text, and filters."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from typing import NamedTuple

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
    """``(start, end]`` in UTC seconds; ``assumed_zone`` is set when a time was given without one.

    It is both zones, where daylight saving time begins or ends between two such times.
    """

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
SOME = "(?s:.+)"
"""Matches every label value that is not empty."""


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
    times = {name: _read_time(text, name, now, zone) for name, text in zip(names, (start, end), strict=True)}
    begins, ends = (time.at for time in times.values())
    if ends <= begins:
        raise ReportRefused("end_before_start", f"{names[1]} must be later than {names[0]}")
    if begins >= now:
        raise ReportRefused("window_in_future", "the window lies in the future")
    if ends - begins > MAX_SECONDS:
        raise ReportRefused("window_too_long", "a report covers at most 366 days")
    assumed = dict.fromkeys(time.assumed_zone for time in times.values() if time.assumed_zone)
    return Window(begins, min(ends, now), ", ".join(assumed) or None)


class _Time(NamedTuple):
    """UTC seconds, and the zone that was assumed if the text had none."""

    at: float
    assumed_zone: str | None = None


def _read_time(text: str, field: str, now: float, zone: tzinfo | None) -> _Time:
    text = text.strip()
    if text == "now":
        return _Time(now)
    if relative := _RELATIVE.fullmatch(text):
        return _Time(now - float(relative[1]) * _UNITS[relative[2]])
    try:
        time = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
    except ValueError:
        raise ReportRefused(
            "time_malformed", f"{field}: use an ISO 8601 time such as 2026-01-31T12:00:00+08:00, or -24h, or now"
        ) from None
    try:
        if time.tzinfo is not None:
            return _Time(time.astimezone(timezone.utc).timestamp())  # which refuses what is no year in UTC
        time = time.replace(tzinfo=zone) if zone is not None else time.astimezone()
        return _Time(time.astimezone(timezone.utc).timestamp(), f"{time.tzname()} ({time.strftime('%z')})")
    except (ValueError, OverflowError, OSError):
        raise ReportRefused("time_malformed", f"{field}: out of range") from None
