"""The hook in beat, on a scheduler of Celery's and a broker inside this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

import pytest
from celery import Celery
from celery.beat import Scheduler, Service
from celery.exceptions import OperationalError
from celery.signals import beat_init

from celerymeter import schedule as hook
from celerymeter.schedule.observer import Observer
from celerymeter.schedule.publisher import MAX_WAITING, Publisher

START = datetime(2026, 11, 28, 12, 0, tzinfo=timezone.utc).timestamp()


@dataclass
class Beat:
    """A beat whose clocks stand still unless `pass_time` is called, and what its hook would publish."""

    entries: dict[str, float]
    now: float = START
    monotonic: float = 1000.0
    published: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    broken: bool = False

    def __post_init__(self) -> None:
        app = Celery("tests", broker="memory://", set_as_current=False)
        app.conf.result_expires = None
        app.conf.beat_schedule = {
            name: {"task": f"tasks.{name}", "schedule": timedelta(seconds=seconds)}
            for name, seconds in self.entries.items()
        }
        app.now = lambda: datetime.fromtimestamp(self.now, tz=timezone.utc)
        self.service = Service(app, scheduler_cls=Scheduler)
        self.scheduler = self.service.scheduler
        self.scheduler.send_task = self._send
        self.observer = Observer(self.service, clock=lambda: self.now, monotonic=lambda: self.monotonic)
        self.observer._publisher = self  # type: ignore[assignment]  # takes what would be published
        self.dropped = 0

    def start(self) -> None:
        """As a publisher."""

    def stop(self, _: object) -> None:
        """As a publisher."""

    def put(self, kind: str, report: dict[str, Any]) -> None:
        """As a publisher."""
        self.published.append((kind, report))

    def _send(self, name: str, *_: object, **__: object) -> Any:
        if self.broken:
            raise OperationalError("no broker")
        return Celery("tests", set_as_current=False).AsyncResult(f"id-of-{name}")

    def pass_time(self, seconds: float, *, step: float = 0.0, ticks: bool = True) -> None:
        """Let beat tick each second; ``step`` sets its clock by so much first."""
        self.now += step
        for _ in range(int(seconds)):
            self.now += 1
            self.monotonic += 1
            while ticks and not self.scheduler.tick():
                pass

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return what was published of a type."""
        return [report for published, report in self.published if published == kind]


def rows(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of reports."""
    return [row for report in reports for row in report["schedule"]]


def test_what_is_sent_is_reported_with_its_id_and_when_it_was_due() -> None:
    """And when it is due again; the counts go on."""
    beat = Beat({"sync": 10})
    beat.pass_time(25)
    sent = beat.of("beat-sent")
    assert [report["uuid"] for report in sent] == ["id-of-tasks.sync"] * 2
    assert [report["due_at"] - START for report in sent] == [pytest.approx(10), pytest.approx(20)]
    assert [(row["schedule"], row["name"], row["sent"]) for row in rows(sent)] == [
        ("sync", "tasks.sync", 1),
        ("sync", "tasks.sync", 2),
    ]
    assert rows(sent)[-1]["next_due_at"] == pytest.approx(START + 30)


def test_what_cannot_be_sent_is_reported_by_its_error() -> None:
    """Celery logs it and goes on."""
    beat = Beat({"sync": 10}, broken=True)
    beat.pass_time(11)
    [failed] = beat.of("beat-failed")
    assert (failed["error"], failed["schedule"][0]["failed"], failed["schedule"][0]["sent"]) == (
        "SchedulingError",
        1,
        0,
    )


def test_the_schedule_is_reported_at_once_each_minute_and_when_it_changes() -> None:
    """An entry that was added is there, one that was removed is not."""
    beat = Beat({"sync": 600, "mail": 600})
    beat.pass_time(1)
    assert {row["schedule"] for row in rows(beat.of("beat-schedule"))} == {"sync", "mail"}
    beat.pass_time(130)
    assert len(beat.of("beat-schedule")) == 3
    beat.scheduler.add(name="new", task="tasks.new", schedule=timedelta(seconds=50))
    del beat.scheduler.schedule["mail"]
    beat.pass_time(1)
    assert {row["schedule"] for row in beat.of("beat-schedule")[-1]["schedule"]} == {"sync", "new"}


def test_times_that_passed_while_beat_was_frozen_count_as_due() -> None:
    """It sends once when it goes on."""
    beat = Beat({"sync": 10})
    beat.pass_time(11)
    beat.pass_time(60, ticks=False)
    assert beat.observer._heartbeat()["lag"] > 50
    beat.pass_time(1)
    row = rows(beat.of("beat-sent"))[-1]
    assert (row["sent"], row["due"]) == (2, 7)


@pytest.mark.parametrize("step", [3600.0, -3600.0], ids=["ahead", "back"])
def test_a_clock_that_is_set_makes_nothing_due_or_late(step: float) -> None:
    """Set back, Celery sends nothing for an hour: the reported due time stays where it was, and passes."""
    beat = Beat({"sync": 100})
    beat.pass_time(50)
    due_in = rows(beat.of("beat-schedule"))[-1]["next_due_at"] - beat.now
    beat.pass_time(120, step=step)
    last = rows(beat.of("beat-sent") or beat.of("beat-schedule"))[-1]
    if step > 0:  # sent at once, and again 100 s later
        assert [row["due"] for row in rows(beat.of("beat-sent"))] == [1, 2]
    else:
        assert last["due"] == 0
        assert last["next_due_at"] - beat.now == pytest.approx(due_in - 120, abs=61)
        assert last["next_due_at"] < beat.now + 1


def test_a_clock_that_is_set_is_reported_with_the_schedule_at_once() -> None:
    """Due times that were reported before are by the clock as it was before."""
    beat = Beat({"sync": 600})
    beat.pass_time(10)
    before = beat.of("beat-schedule")
    beat.pass_time(1, step=-3600)
    reports = beat.of("beat-schedule")
    assert len(reports) == len(before) + 1
    assert reports[-1]["skew"] - before[-1]["skew"] == -3600


def test_an_error_of_the_hook_never_reaches_beat() -> None:
    """Beat sends what is due, whatever an entry says of itself."""
    beat = Beat({"sync": 10})

    def broken(*_: object) -> NoReturn:
        raise ValueError("on purpose")

    sent: list[str] = []
    beat.scheduler.send_task = lambda name, *_, **__: sent.append(name)
    beat.put = broken  # type: ignore[method-assign, assignment]  # it fails from now on
    beat.pass_time(35)
    assert sent == ["tasks.sync"] * 3


@pytest.mark.parametrize(("interval", "slept"), [(300.0, 60.0), (5.0, 5.0), (0, 0), (None, None), ("odd", "odd")])
def test_beat_looks_at_its_schedule_each_minute(interval: object, slept: object) -> None:
    """So that the schedule can be reported; whatever else a scheduler returns is left to beat."""
    beat = Beat({})
    service = Service(Celery("tests", set_as_current=False), scheduler_cls=Scheduler)
    service.scheduler.tick = lambda: interval
    observer = Observer(service, clock=lambda: beat.now, monotonic=lambda: beat.monotonic)
    observer._publisher = beat  # type: ignore[assignment]  # takes what would be published
    assert service.scheduler.tick() == slept


def test_installing_twice_observes_once_and_only_that_app() -> None:
    """Another app's beat in the same process is not touched."""
    mine, other = (Celery(name, set_as_current=False) for name in ("mine", "other"))
    hook.install(mine)
    hook.install(mine)
    services = [Service(app, scheduler_cls=Scheduler) for app in (mine, other)]
    for service in services:
        beat_init.send(sender=service)
        beat_init.send(sender=service)
    hook.uninstall(mine)
    assert [service.scheduler.tick.__name__ for service in services] == ["observed_tick", "tick"]


@pytest.fixture
def publisher() -> Iterator[Callable[[str], Publisher]]:
    """Makes publishers, stopped at the end."""
    made: list[Publisher] = []

    def make(url: str) -> Publisher:
        app = Celery("tests", broker=url, set_as_current=False)
        made.append(Publisher(app, hostname="celerybeat@test", heartbeat=lambda: {"lag": 0}))
        return made[-1]

    yield make
    for one in made:
        one.stop({})


def test_what_waits_for_a_broker_is_bounded(publisher: Callable[[str], Publisher]) -> None:
    """The rest is counted."""
    one = publisher("redis://127.0.0.1:1/0")
    for _ in range(MAX_WAITING + 7):
        one.put("beat-sent", {})
    assert one.dropped == 7


def test_it_needs_celery_alone() -> None:
    """The hook drags none of the exporter's libraries into an application."""
    code = (
        "import sys; import celery, celery.signals, celery.schedules; before = set(sys.modules);"
        "import celerymeter.schedule;"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('celery.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {name.partition(".")[0] for name in done.stdout.split()} <= {"celerymeter", *sys.stdlib_module_names}
