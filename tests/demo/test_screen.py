"""The live line."""

from __future__ import annotations

import io

import pytest

from celerymeter.demo.screen import Screen, live_line, sparkline
from celerymeter.demo.watch import Reading, Readings, read_page

PAGE = """
# TYPE celery_task_succeeded counter
celery_task_succeeded_total{name="a",queue_name="q"} 90
# TYPE celery_task_failed counter
celery_task_failed_total{name="a",queue_name="q"} 10
# TYPE celery_queue_length gauge
celery_queue_length{queue_name="q"} 7
# TYPE celery_worker_up gauge
celery_worker_up{hostname="celery@one"} 1
celery_worker_up{hostname="celery@two"} 0
# TYPE celerymeter_broker_up gauge
celerymeter_broker_up 1
"""


def reading(time: float, *, ended: float = 0.0, failed: float = 0.0, length: float = 0.0) -> Reading:
    """Return one reading of a small cluster."""
    return Reading(time, ended, failed, {"orders": length}, up=2, workers=2, broker_up=True)


def history(*readings: Reading) -> Readings:
    """Return a history of these readings."""
    known = Readings()
    for one in readings:
        known.add(one)
    return known


def test_a_page_is_read() -> None:
    """Totals are summed over series; workers are counted."""
    assert read_page(PAGE, time=5.0) == Reading(5.0, 100, 10, {"q": 7}, up=1, workers=2, broker_up=True)


def test_rates_are_differences_and_an_exporter_restart_begins_a_new_history() -> None:
    """A total that falls is not a negative rate."""
    known = history(reading(0, ended=10), reading(2, ended=30), reading(3, ended=34))
    assert known.rates() == [10, 4]
    known.add(reading(4, ended=2))
    assert known.rates() == []


def test_the_failed_share_is_unknown_when_nothing_ended() -> None:
    """It is not 0 then."""
    assert history(reading(0, ended=5, failed=5), reading(1, ended=25, failed=6)).failed_share() == pytest.approx(0.05)
    assert history(reading(0), reading(1)).failed_share() is None


def test_a_sparkline_shows_the_last_values_against_the_highest() -> None:
    """The oldest value is on the left."""
    assert sparkline([9, 0, 4, 8], width=3) == "▁▅█"
    assert sparkline([1], width=3, top=7) == "  ▂"
    assert sparkline([0, 0], width=2) == "▁▁"


def test_the_line_fits_the_terminal() -> None:
    """Queues are left out before alerts, workers and throughput."""
    known = history(reading(0), reading(1, ended=12, length=3))
    whole = live_line(known, ("CeleryQueueBacklog",), elapsed=61, width=200, colour=False)
    assert whole.startswith("1:01   12.0 tasks/s")
    assert "workers 2/2  firing: CeleryQueueBacklog  orders 3 " in whole
    narrow = live_line(known, ("CeleryQueueBacklog",), elapsed=61, width=80, colour=False)
    assert len(narrow) <= 80
    assert "orders" not in narrow


def test_the_longest_queue_comes_first() -> None:
    """It is shown where not all of them fit."""
    quiet, full = {"a": 0.0, "b": 0.0, "c": 0.0}, {"a": 0.0, "b": 9.0, "c": 1.0}
    readings = (Reading(at, 0, 0, queues, up=1, workers=1, broker_up=True) for at, queues in ((0, full), (1, quiet)))
    line = live_line(history(*readings), (), elapsed=0, width=200, colour=False)
    assert line.index("b 0") < line.index("c 0") < line.index("a 0")


def test_colours_take_no_columns() -> None:
    """The same parts are shown with and without colours."""
    known = history(reading(0), reading(1, ended=12, length=3))
    plain = live_line(known, (), elapsed=0, width=100, colour=False)
    coloured = live_line(known, (), elapsed=0, width=100, colour=True)
    assert len(coloured) > len(plain)
    assert ("orders" in coloured) == ("orders" in plain)


def test_without_a_terminal_every_line_stays() -> None:
    """A log contains no escape sequences."""
    out = io.StringIO()
    screen = Screen(out)
    screen.show("one")
    screen.say("two")
    assert out.getvalue() == "one\ntwo\n"
