"""Data that others send is kept within budgets of bytes, and whatever had to go for it is counted."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celerymeter import escaping
from celerymeter.control.alerts import MAX_TEXT, AlertsQuery, AlertStore, PostedAlert
from celerymeter.control.audit.trail import MAX_PAGE, Actor, AuditQuery, AuditTrail
from celerymeter.control.desired_state import DesiredStateStore
from celerymeter.control.evidence.events import MAX_ID, EventCache
from celerymeter.control.live_workers import MAX_NEW, MAX_SILENT, MAX_WORKERS, LiveWorkers
from celerymeter.control.reports import KEPT, KEPT_OF_ONE, ReportStore
from celerymeter.control.revocation.service import revoke_request
from celerymeter.control.store import Store
from celerymeter.control.task_events import TaskEventSwitch
from celerymeter.control.tasks import EarlierUse, IdempotencyKeys, KeyUse
from celerymeter.errors import RequestRefused
from celerymeter.model import Event
from celerymeter.remote_control import RemoteControl
from celerymeter.reports.request import Filters, ReportRequest, Window
from celerymeter.settings import BrokerSettings

NOW = time.time()
LONG = 512
"""Characters that the decoder lets a name have."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A state directory."""
    store = Store(tmp_path / "state")
    yield store
    store.close()


def allocated(work: Callable[[], object]) -> float:
    """Return how many MB more are in use after the work, whose result is kept for as long."""
    tracemalloc.start()
    kept = work()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return used / 1e6


def task_event(kind: str, number: int, text: Callable[[str], str]) -> Event:
    """An event of which every name is another."""
    names: dict[str, Any] = {field: text(f"{field}{number}") for field in ("hostname", "name", "queue", "routing_key")}
    return Event(type=kind, timestamp=NOW, uuid=f"id-{number}", pid=1, **names)


NAMES: dict[str, Callable[[str], str]] = {
    "long": lambda name: name.ljust(LONG, "x"),
    "long and wide": lambda name: name.ljust(LONG, "\U0001f600"),
    "short": lambda name: name,
    "the same": lambda name: name.rstrip("0123456789"),
}


@pytest.mark.parametrize("text", NAMES.values(), ids=NAMES.keys())
def test_the_event_cache_keeps_to_its_budget(text: Callable[[str], str]) -> None:
    """Whatever its names are like; the youngest stay, and each that goes is counted."""
    evicted: list[int] = []

    def fill() -> EventCache:
        cache = EventCache(most_bytes=1_500_000, evicted=evicted.append)
        for number in range(2_500):
            cache.add([task_event("task-received", number, text), task_event("task-started", number, text)], NOW)
        return cache

    cache = fill()
    kept = len(cache.last_events([f"id-{number}" for number in range(2_500)]))
    assert kept + sum(evicted) == 2_500
    assert "id-2499" in cache.last_events(["id-2499"])
    assert allocated(fill) < 5.0  # the interpreter's table of interned names grows by up to 3 MB at a time


@pytest.mark.parametrize("events", [3, 30, 300])
def test_one_task_of_many_runs_takes_a_bounded_part(events: int) -> None:
    """Its history is cut, and the budget knows what is left."""
    cache = EventCache()
    wide = NAMES["long and wide"]
    for number in range(events):
        started = task_event("task-started", number, wide)
        started.uuid = "one"
        cache.add([started], NOW)
    assert cache._bytes < 60_000


@pytest.mark.parametrize("length", [MAX_ID + 1, 400, LONG])
def test_an_id_that_nobody_can_ask_about_is_not_kept(length: int) -> None:
    """It is counted."""
    evicted: list[int] = []
    cache = EventCache(evicted=evicted.append)
    event = task_event("task-received", 1, str)
    event.uuid = "u" * length
    cache.add([event], NOW)
    assert (sum(evicted), cache._bytes) == (1, 0)


@pytest.mark.parametrize("kind", ["worker-heartbeat", "task-progress", "worker-shop-opened", "task-started"])
def test_invented_workers_take_little(store: Store, kind: str) -> None:
    """Also in what the switch of task events remembers of each."""
    workers = LiveWorkers()
    switch = TaskEventSwitch(
        RemoteControl(BrokerSettings(url="redis://127.0.0.1:1/0")), DesiredStateStore(store), workers
    )

    def flood() -> object:
        for number in range(6_000):
            event = task_event(kind, number, lambda name: name.ljust(200, "x"))
            workers.events([event], NOW)
            switch.events([event], NOW)
        return workers, switch

    assert allocated(flood) < 10
    assert len(workers._new) + len(workers._known) <= MAX_NEW + MAX_SILENT
    assert len(switch._evidence) <= MAX_WORKERS


def alert(number: int, **texts: dict[str, str]) -> PostedAlert:
    """An alert as the webhook takes it."""
    good = {
        "status": "firing",
        "labels": {"alertname": "A", "severity": "critical"},
        "startsAt": "2026-01-01T00:00:00Z",
    }
    return PostedAlert.model_validate({**good, "fingerprint": str(number), **texts})


TEXTS = {
    "many long texts": {f"text{n}": "x" * 4096 for n in range(100)},
    "many wide texts": {f"text{n}": "\U0001f600" * 4096 for n in range(100)},
    "control characters": {f"text{n}": "\x01" * 4096 for n in range(100)},
    "long names": {f"{n:0256}": "x" * 100 for n in range(100)},
    "quotes": {f"text{n}": '"\\' * 2048 for n in range(100)},
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS.keys())
def test_an_alert_is_kept_with_its_names_and_some_of_its_text(store: Store, texts: dict[str, str]) -> None:
    """10,000 of them would otherwise be 8 GB, and a reply lists 500."""
    shortened: list[int] = []
    alerts = AlertStore(store, shortened=shortened.append)
    short = {"alertname": "A", "severity": "critical"}
    (kept,) = alerts.add([alert(1, labels={**dict(list(texts.items())[:98]), **short}, annotations=texts)])
    for made in (kept.labels, kept.annotations):
        assert len(json.dumps(made, ensure_ascii=False).encode()) <= MAX_TEXT
    assert (kept.name, kept.severity, kept.labels["alertname"]) == ("A", "critical", "A")
    assert sum(shortened) > 0
    assert alerts.add([alert(1, labels={**dict(list(texts.items())[:98]), **short}, annotations=texts)]) == []


def test_usual_alerts_are_kept_whole(store: Store) -> None:
    """Also with a long description in two languages."""
    texts = {"summary": "佇列" * 100, "description": "d" * 4096, "description_zh": "說明" * 1000}
    (kept,) = AlertStore(store, shortened=lambda _: pytest.fail("cut")).add([alert(1, annotations=texts)])
    assert kept.annotations == texts


def test_a_text_that_is_cut_says_so(store: Store) -> None:
    """By a mark at its end."""
    (kept,) = AlertStore(store).add([alert(1, annotations={f"t{n}": "y" * 4000 for n in range(8)})])
    assert any(text.endswith(escaping.CUT) for text in kept.annotations.values())


def test_a_list_of_the_largest_alerts_is_a_few_megabytes(store: Store) -> None:
    """973 MB they were."""
    alerts = AlertStore(store)
    for start in range(0, 500, 100):
        alerts.add([alert(start + n, annotations=TEXTS["many long texts"]) for n in range(100)])
    assert allocated(lambda: alerts.latest(AlertsQuery(limit=500))) < 20


@pytest.fixture
def reports(store: Store) -> ReportStore:
    """A store that keeps ten reports."""
    return ReportStore(store, keep=10)


def begin(reports: ReportStore, subject: str, number: int) -> str:
    """Have a report begun."""
    report_id = f"{subject}-{number}"
    reports.begin(report_id, ReportRequest(Window(NOW - 60, NOW), Filters()), subject=subject)
    return report_id


@pytest.mark.parametrize(("others", "each"), [(1, 100), (2, 50), (9, 20), (1, 11)])
def test_nobody_makes_the_reports_of_others_go(reports: ReportStore, others: int, each: int) -> None:
    """Of too many, those of the subject that has the most go."""
    mine = begin(reports, "ann", 0)
    for number in range(each):
        for other in range(others):
            begin(reports, f"eve{other}", number)
    assert reports.find(mine) is not None
    assert len(reports.newest(task=None, limit=200)) == 10


def test_one_subject_keeps_a_part_of_all(store: Store) -> None:
    """The newest; what goes is counted."""
    evicted: list[int] = []
    reports = ReportStore(store, evicted=evicted.append)
    ids = [begin(reports, "eve", number) for number in range(KEPT)]
    kept = [report.report_id for report in reports.newest(task=None, limit=200)]
    assert kept == ids[: -KEPT_OF_ONE - 1 : -1]
    assert sum(evicted) == KEPT - KEPT_OF_ONE


def test_a_store_of_an_earlier_release_goes_on(store: Store) -> None:
    """Its reports belong to nobody."""
    store.declare(
        "CREATE TABLE reports (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
        " asked_at REAL NOT NULL, begins REAL NOT NULL, ends REAL NOT NULL, task TEXT, queue TEXT, problem TEXT,"
        " body BLOB)",
        f"INSERT INTO reports (id, asked_at, begins, ends) VALUES ('old', {NOW}, 0, 1)",
    )
    reports = ReportStore(store)
    begin(reports, "ann", 1)
    assert [report.report_id for report in reports.newest(task=None, limit=9)] == ["ann-1", "old"]


# Revokes


@pytest.mark.parametrize("sign", ["\U0001f600", "列", "é", '"'])
def test_ids_of_a_batch_are_bounded_in_bytes(sign: str) -> None:
    """1,000 of 255 wide characters were a row of 3 MB in the audit trail, and a page has 500 rows."""
    with pytest.raises(RequestRefused, match="send fewer at a time"):
        revoke_request([f"{number}{sign * 250}" for number in range(1000)])
    assert len(revoke_request([f"{number}{sign * 20}" for number in range(1000)]).task_ids) == 1000


def test_the_longest_usual_ids_fit() -> None:
    """1,000 of 255 characters."""
    assert len(revoke_request([f"{number:0255}" for number in range(1000)]).task_ids) == 1000


@pytest.mark.parametrize("where", ["target", "detail"])
def test_a_page_of_the_trail_is_bounded_in_bytes(store: Store, where: str) -> None:
    """It ends earlier, and the next one goes on where it ended."""
    trail = AuditTrail(store, key=b"k" * 32)
    ids = [f"{number:0250}" for number in range(1000)]
    for _ in range(30):
        with trail.act(Actor("eve"), "revoke", target=ids if where == "target" else ()) as act:
            act.detail = {"task_ids": ids} if where == "detail" else None
    seen: list[int] = []
    while True:
        page = trail.page(AuditQuery(before=seen[-1] if seen else None), 500)
        assert sum(len(row.target) + len(row.detail) for row in page) <= MAX_PAGE
        seen += [row.row for row in page]
        if not trail.is_more(AuditQuery(), page[-1]):
            break
    assert seen == list(range(60, 0, -1))


class Uses:
    """Uses of keys by one subject, at a time that a test sets."""

    def __init__(self, store: Store) -> None:
        self.now = NOW
        self.keys = IdempotencyKeys(store, clock=lambda: self.now)

    def answered(self, number: int, answer: str) -> None:
        """Let a request be answered."""
        assert self.keys.begin(self.use(number), f"b{number}") is None
        self.keys.finish(self.use(number), status=200, answer=answer)
        self.now += 1

    def use(self, number: int) -> KeyUse:
        """The use of one key."""
        return KeyUse("eve /tasks/batch", f"k{number}", "digest")

    def again(self, number: int) -> EarlierUse | None:
        """Send it again."""
        return self.keys.begin(self.use(number), "another")


@pytest.mark.parametrize("sign", ["x", "\U0001f600"])
def test_answers_to_be_repeated_are_bounded_in_bytes(store: Store, sign: str) -> None:
    """The oldest go; their keys stay, so that nothing is done twice."""
    uses, answer = Uses(store), sign * (IdempotencyKeys.MAX_ANSWERS // 20 // len(sign.encode()))
    for number in range(30):
        uses.answered(number, answer)
    kept = [again.answer is not None for number in range(30) if (again := uses.again(number))]
    assert len(kept) == 30
    assert 15 <= sum(kept) <= 20
    assert kept == sorted(kept)
    assert (first := uses.again(0)) is not None
    assert (first.status, first.answer) == (200, None)


def test_keys_are_bounded_in_number(store: Store) -> None:
    """None is forgotten before its day is over; there is room again then."""
    uses = Uses(store)
    uses.answered(0, "x")
    with store.write() as connection:
        rows = ((f"k{number}", NOW + 1) for number in range(1, IdempotencyKeys.MAX_KEYS))
        connection.executemany("INSERT INTO revoke_keys VALUES ('', ?, '', '', ?, 200, '')", rows)
    uses.now += IdempotencyKeys.SWEEP
    with pytest.raises(RequestRefused, match="too many keys"):
        uses.again(1)
    assert uses.again(0) is not None
    uses.now += IdempotencyKeys.LIFETIME
    assert uses.again(1) is None
