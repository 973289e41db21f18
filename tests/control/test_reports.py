"""Reports over HTTP: at once, later, again, and never a number that nobody knows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from tests.control.access import bearer
from tests.reports import samples
from werkzeug.test import TestResponse

from celerymeter.control.app import create_app
from celerymeter.control.parts import Parts
from celerymeter.control.reports import WAITING, ReportRunner, ReportStore
from celerymeter.control.settings import ControlSettings
from celerymeter.control.store import Store
from celerymeter.demo.processes import wait_until
from celerymeter.errors import PrometheusUnavailable
from celerymeter.reports.report import Report
from celerymeter.reports.request import Filters, ReportRequest, Window

BASE = "/celery-admin/monitoring/reports"
HOUR = {"start": "-1h", "end": "now"}


class Maker:
    """Makes a report at once, or once `may_go` is set; raises `error` if there is one."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.may_go.set()
        self.error: Exception | None = None
        self.known = True
        self.asked: list[ReportRequest] = []

    def __call__(self, request: ReportRequest, *, report_id: str) -> Report:
        """A report with this id."""
        self.asked.append(request)
        assert self.may_go.wait(20)
        if self.error is not None:
            raise self.error
        if not self.known:
            return samples.unknowable(report_id=report_id)
        return samples.report(report_id=report_id, filters=request.filters, total_tasks=7)


@pytest.fixture
def maker() -> Iterator[Maker]:
    """Yield the maker of the reports; at the end none of them waits any longer."""
    made = Maker()
    yield made
    made.may_go.set()


@pytest.fixture
def api(settings: ControlSettings, parts: Parts, maker: Maker) -> Iterator[FlaskClient]:
    """The API, which waits a moment for a report."""
    runner = ReportRunner(maker, ReportStore(parts.store), timeout=0.3)
    yield create_app(settings, replace(parts, reports=runner)).test_client()
    maker.may_go.set()
    runner.stop()


def post(api: FlaskClient, **body: str) -> TestResponse:
    """Ask for a report of the last hour, or of what the body says."""
    return api.post(f"{BASE}/performance", json={**HOUR, **body}, headers=bearer())


def get(api: FlaskClient, path: str = "", **headers: str) -> TestResponse:
    """GET below the reports."""
    return api.get(BASE + path, headers={**bearer(), **headers})


def test_a_quick_report_is_the_answer(api: FlaskClient) -> None:
    """With the fields that the documented client prints."""
    reply = post(api)
    report = reply.get_json()
    assert reply.status_code == 200
    assert (report["total_tasks"], report["successful_tasks"], report["failed_tasks"]) == (7, 0, 0)
    assert {"report_id", "time_range", "avg_execution_time_ms", "peak_throughput"} <= report.keys()
    assert report["optimization_recommendations"] == []


def test_it_can_be_read_again_in_every_form(api: FlaskClient) -> None:
    """And in the reader's language."""
    report_id = post(api).get_json()["report_id"]
    assert get(api, f"/{report_id}").get_json()["report_id"] == report_id
    types = {form: get(api, f"/{report_id}.{form}").mimetype for form in ("html", "csv", "md")}
    assert types == {"html": "text/html", "csv": "text/csv", "md": "text/markdown"}
    page = get(api, f"/{report_id}.html", **{"Accept-Language": "zh-TW,en;q=0.5"})
    assert "效能報告" in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")


def test_a_slow_report_is_promised(api: FlaskClient, maker: Maker) -> None:
    """202 with its address, which has it when it is ready; until then there is no page."""
    maker.may_go.clear()
    reply = post(api)
    url = reply.get_json()["url"].removeprefix(BASE)
    assert (reply.status_code, reply.headers["Location"]) == (202, BASE + url)
    assert (get(api, url).status_code, get(api, f"{url}.html").status_code) == (202, 409)
    maker.may_go.set()
    wait_until(lambda: get(api, url).status_code == 200)
    assert get(api, url).get_json()["total_tasks"] == 7


def test_reports_are_listed_by_task(api: FlaskClient) -> None:
    """As the dashboards' links ask for them; the newest first."""
    for task in ("add", "mail", "add"):
        post(api, task=task)
    listed = get(api, "?task=add").get_json()["reports"]
    assert [(one["task"], one["status"]) for one in listed] == [("add", "ready")] * 2
    assert [one["task"] for one in get(api).get_json()["reports"]] == ["add", "mail", "add"]


def test_filters_reach_the_report(api: FlaskClient, maker: Maker) -> None:
    """As they are written."""
    post(api, task='a"b', queue="{x}")
    assert maker.asked[0].filters == Filters('a"b', "{x}")


@pytest.mark.parametrize(
    ("window", "code"),
    [
        ({"start": "now", "end": "-1h"}, "end_before_start"),
        ({"start": "2999-01-01T00:00:00Z", "end": "2999-01-02T00:00:00Z"}, "window_in_future"),
        ({"start": "2001-01-01T00:00:00Z"}, "window_too_long"),
        ({"start": "2026-02-30T00:00:00"}, "time_malformed"),
        ({"start": "yesterday"}, "invalid"),
    ],
)
def test_a_bad_window_is_refused_with_its_code(api: FlaskClient, window: dict[str, str], code: str) -> None:
    """422."""
    reply = post(api, **window)
    assert (reply.status_code, reply.get_json()["code"]) == (422, code)


def test_a_time_that_is_none_is_answered_in_words(api: FlaskClient) -> None:
    """With an example, not with the expression that it does not match; the reply ends its line."""
    reply = post(api, start="yesterday")
    (error,) = reply.get_json()["errors"]
    assert error["pointer"] == "/start"
    assert error["message"] == "must be now, -24h, or an ISO 8601 time such as 2026-01-31T12:00:00+08:00"
    assert reply.get_data().endswith(b"}\n")


def test_a_time_without_zone_is_the_servers(api: FlaskClient, maker: Maker) -> None:
    """As the documented client writes it; the report will say which zone was assumed."""
    end = datetime.now()
    assert post(api, start=(end - timedelta(hours=24)).isoformat(), end=end.isoformat()).status_code == 200
    (request,) = maker.asked
    assert request.window.seconds == pytest.approx(86_400, abs=3_700)  # clocks may have been set by an hour
    assert request.window.assumed_zone


def test_what_cannot_be_known_is_null_with_its_reason(api: FlaskClient, maker: Maker) -> None:
    """A window beyond retention is a report all the same."""
    maker.known = False
    report = post(api, start="-300d", end="-299d").get_json()
    reason = report["unknown"]["total_tasks"]
    assert (report["total_tasks"], reason["code"]) == (None, "no_scrapes")
    assert "older than the retention" in reason["text"]


def test_without_prometheus_there_is_no_report(api: FlaskClient, maker: Maker) -> None:
    """503; the list says what became of it, and so does its address."""
    maker.error = PrometheusUnavailable("away")
    assert post(api).status_code == 503
    (listed,) = get(api).get_json()["reports"]
    assert (listed["status"], listed["problem"]) == ("failed", "prometheus_unavailable")
    assert get(api, f"/{listed['report_id']}").status_code == 503


def test_an_unknown_report_is_not_found(api: FlaskClient) -> None:
    """Nor one with a name that cannot be."""
    codes = [get(api, path).status_code for path in (f"/{'0' * 32}", f"/{'0' * 32}.html", "/x", f"/{'g' * 32}")]
    assert codes == [404, 404, 404, 422]


def test_only_so_many_are_made(api: FlaskClient, maker: Maker) -> None:
    """More are refused for now, and nothing is lost."""
    maker.may_go.clear()
    codes = [post(api).status_code for _ in range(WAITING + 1)]
    assert codes == [202] * WAITING + [429]
    maker.may_go.set()
    wait_until(lambda: {one["status"] for one in get(api).get_json()["reports"]} == {"ready"})
    assert post(api).status_code == 200


def test_the_newest_are_kept(tmp_path: Path) -> None:
    """Older ones make room."""
    store = Store(tmp_path)
    kept = ReportStore(store, keep=3)
    for number in range(5):
        kept.begin(f"{number}", ReportRequest(Window(0.0, 1.0)))
    listed = kept.newest(task=None, limit=9)
    assert (len(listed), listed[0].report_id, listed[0].status) == (3, "4", "running")
    store.close()


def test_a_report_that_was_lost_with_its_process_has_failed(tmp_path: Path) -> None:
    """From the next start on, however long it had been made."""
    store = Store(tmp_path)
    before = ReportStore(store)
    before.begin("lost", ReportRequest(Window(0.0, 1.0)))
    found = before.find("lost")
    assert found is not None
    assert found.status == "running"
    found = ReportStore(store).find("lost")
    assert found is not None
    assert (found.status, found.problem) == ("failed", "internal")
    store.close()
