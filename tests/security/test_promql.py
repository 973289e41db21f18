"""Names in reports, as parameters and as labels: each means exactly itself, on a real Prometheus through the API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests
from tests.control.access import bearer
from tests.control.serving import Control
from tests.engines import Canned, start_engine

from celerymeter.control.tokens import Role

pytestmark = pytest.mark.integration

NOW = time.time()
SCRAPES = [NOW - 15.0 * number for number in range(40, 0, -1)]
NAMES = [
    'shop.pay"} or vector(1) #',
    'a"',
    "a'",
    "a`",
    "a\\",
    "a\\\\",
    'a\\"',
    "{a}",
    "{SEL}",
    "{SEL, x}",
    "$name",
    "$queue",
    "${name}",
    "%s{0}",
    ".*",
    "a|b",
    "(a+)+$",
    "(",
    "[",
    "[^a]",
    "a{1000}",
    "(?i)A",
    "^a$",
    "\\d",
    "\\Q.\\E",
    "\\x61",
    "\\",
    "a\nb",
    "a\r\n",
    "a\tb",
    "a b",
    " a",
    "a ",
    "a\x00b",
    "a\x7f",
    "a\u2028",
    "\ufeffa",
    "\u202ea",
    "é",
    "e\u0301",
    "\U0001f600",
    "#",
    "a#b",
    "a/*b*/",
    "}",
    '", name!="',
    '"}) + 1e9 * vector(1) or ({a="',
    "offset 5m",
    "[5m]",
    "a&b~c-d",
    "😀" * 60,
    "x" * 200,
    "(x+x+)+y" * 20,
]
"""Of tasks and of queues, each of which has its own count."""


def _series() -> Iterator[Canned]:
    target = {"job": "celery", "instance": "a:9808"}
    yield Canned("celerymeter_build_info", target, [(at, 1.0) for at in SCRAPES])
    yield Canned("celerymeter_start_time_seconds", target, [(at, NOW - 86400.0) for at in SCRAPES])
    yield Canned("up", target, [(at, 1.0) for at in SCRAPES])
    for number, name in enumerate(NAMES, start=1):
        labels = {**target, "name": name, "queue_name": f"q{name}"}
        yield Canned(
            "celery_task_succeeded_total", labels, [(at, 10.0 + number * (at == SCRAPES[-1])) for at in SCRAPES]
        )


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has a run or more of each of them."""
    server, url = start_engine("prometheus", tmp_path_factory.mktemp("prometheus") / "data", list(_series()))
    with server:
        yield url


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory, prometheus: str) -> Iterator[Control]:
    """The API on it."""
    options = ("--prometheus-url", prometheus)
    with Control(tmp_path_factory.mktemp("control"), options) as server:
        yield server.up()


def report(control: Control, **filters: str) -> dict[str, Any]:
    """Return a report of the last ten minutes."""
    url = f"{control.url}/monitoring/reports/performance"
    answer = requests.post(url, json={"start": "-9m", "end": "now", **filters}, headers=bearer(Role.VIEWER), timeout=30)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


ASKED = [NAMES[0], "a\\", "{SEL}", ".*", "a|b", "(", "\\Q.\\E", "a\nb", "a\x00b", '"}) + 1e9 * vector(1) or ({a="']


@pytest.mark.parametrize(("kind", "name"), [("task" if at % 2 else "queue", name) for at, name in enumerate(ASKED)])
def test_a_report_of_one_name_counts_that_one(control: Control, name: str, kind: str) -> None:
    """Neither more nor less, whatever it says in PromQL or as a regular expression."""
    found = report(control, **{kind: name if kind == "task" else f"q{name}"})
    assert found["total_tasks"] == NAMES.index(name) + 1


def test_a_report_of_everything_counts_everything(control: Control) -> None:
    """And shows each by its name."""
    found = report(control)
    assert found["total_tasks"] == sum(range(1, len(NAMES) + 1))
    assert {row["name"] for row in found["tasks"]} == set(NAMES)


@pytest.mark.parametrize(
    "body",
    [
        {"task": "x" * 256},
        {"task": ""},
        {"queue": ["a"]},
        {"task": {"$ne": "a"}},
        {"start": "-1h] or vector(1) #"},
        {"start": "now()"},
        {"end": "2026-01-01T00:00:00Z offset 5m"},
        {"start": "-999999w"},
        {"selector": "{}"},
        {"cluster": '"} or vector(1)'},
    ],
)
def test_what_is_no_name_or_time_is_refused(control: Control, body: dict[str, object]) -> None:
    """Before Prometheus is asked."""
    url = f"{control.url}/monitoring/reports/performance"
    body = {"start": "-9m", "end": "now", **body}
    assert requests.post(url, json=body, headers=bearer(Role.VIEWER), timeout=30).status_code == 422


@pytest.mark.parametrize("path", ["/monitoring/metrics/realtime", "/monitoring/dashboard", "/monitoring/reports"])
@pytest.mark.parametrize("query", ["queue=", "name=", "cluster=", "task=", "selector="])
def test_parameters_of_the_monitoring_reach_no_query(control: Control, path: str, query: str) -> None:
    """Refused, ignored, or a plain comparison in the database."""
    hostile = quote("\"} or vector(1) # ' OR 1=1 --")
    usual = requests.get(f"{control.url}{path}", headers=bearer(), timeout=30)
    answer = requests.get(f"{control.url}{path}?{query}{hostile}", headers=bearer(), timeout=30)
    assert answer.status_code in (200, 422, usual.status_code)
    assert "vector" not in answer.text or answer.status_code == 422
