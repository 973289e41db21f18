"""Windows that make no sense are refused with a word that says why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from celerymeter.errors import ReportRefused
from celerymeter.reports.request import read_window

NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("start", "end", "code"),
    [
        ("now", "-1h", "end_before_start"),
        ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00Z", "end_before_start"),
        ("2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z", "window_in_future"),
        ("2020-01-01T00:00:00Z", "now", "window_too_long"),
        ("yesterday", "now", "time_malformed"),
        ("2026-02-30T00:00:00Z", "now", "time_malformed"),
        ("-1y", "now", "time_malformed"),
        ("0001-01-01", "now", "time_malformed"),
        ("0001-01-01T00:00:00+14:00", "now", "time_malformed"),
        ("-1h", "9999-12-31T23:59:59.999999-14:00", "time_malformed"),
        ("-" + "9" * 400 + "d", "now", "window_too_long"),
    ],
)
def test_it_is_refused(start: str, end: str, code: str) -> None:
    """With a code that does not change."""
    with pytest.raises(ReportRefused) as refused:
        read_window(start, end, now=NOW)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("-90s", 90), ("-24h", 86_400), ("-7d", 604_800), ("-52w", 31_449_600), ("2026-01-31T13:00:00+02:00", 3600)],
)
def test_it_may_be_relative_or_have_any_zone(text: str, seconds: float) -> None:
    """Up to a year."""
    window = read_window(text, "now", now=NOW)
    assert (window.seconds, window.assumed_zone) == (seconds, None)


def test_a_time_without_zone_is_the_servers_and_that_is_said() -> None:
    """As a client writes it that calls `datetime.now().isoformat()`."""
    taipei = timezone(timedelta(hours=8))
    window = read_window("2026-01-31T18:00:00.123456", "2026-01-31T20:00:00", now=NOW, zone=taipei)
    assert window.start == NOW - 7200 + 0.123456
    assert window.assumed_zone == "UTC+08:00 (+0800)"


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine stands in New York."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize(
    ("start", "end", "zone"),
    [
        ("2025-10-25T12:00:00Z", "2025-11-02T12:00", "EST (-0500)"),
        ("2025-10-25T12:00", "2025-11-02T12:00:00Z", "EDT (-0400)"),
        ("2025-10-25T12:00", "2025-11-02T12:00", "EDT (-0400), EST (-0500)"),
        ("2025-10-25T12:00", "2025-10-25T13:00", "EDT (-0400)"),
        ("9999-12-31T23:59:59", "now", None),
    ],
)
def test_the_zone_is_that_of_the_time_without_one(start: str, end: str, zone: str | None) -> None:
    """Daylight saving time may begin or end within the window."""
    if zone is None:
        with pytest.raises(ReportRefused):
            read_window(start, end, now=NOW)
    else:
        assert read_window(start, end, now=NOW).assumed_zone == zone


def test_an_end_in_the_future_is_now() -> None:
    """The window has what is there."""
    assert read_window("-1h", "2026-02-01T00:00:00Z", now=NOW).end == NOW
