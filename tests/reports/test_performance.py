"""The numbers of a report equal the canned history counted by hand, on every engine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest
from tests.engines import NAMES, start_engine
from tests.reports.shop import BEGIN, BOUNDS, EVERY, NOON, Shop
from tests.reports.test_advice import CASES

from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope
from celerymeter.reports.advice import recommend
from celerymeter.reports.history import HistoryReader, peak
from celerymeter.reports.report import Quantiles, Report
from celerymeter.reports.request import Filters, ReportRequest, Window
from celerymeter.reports.service import ReportService

pytestmark = pytest.mark.integration

SHOP = Shop()
START, END = NOON, NOON + 3000.0
WINDOW = Window(START, END)


@pytest.fixture(scope="module", params=NAMES)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusClient]:
    """A client of each engine, with the shop's history."""
    server, url = start_engine(request.param, Path(tmp_path_factory.mktemp("engine")) / "data", SHOP.series())
    with server, PrometheusClient(PrometheusSettings(url)) as client:
        yield client


@pytest.fixture(scope="module")
def report(client: PrometheusClient) -> Report:
    """Of fifty minutes."""
    return ask(client)


def ask(client: PrometheusClient, window: Window = WINDOW, filters: Filters | None = None) -> Report:
    """The report of the only cluster."""
    return ReportService(client, Scope()).report(ReportRequest(window, filters or Filters()))


def bucket_of(seconds: float) -> tuple[float, float]:
    """The bounds between which a run time lies."""
    upper = next(bound for bound in BOUNDS if seconds <= bound)
    return max((bound for bound in BOUNDS if bound < upper), default=0.0), upper


def test_counts_are_those_of_the_history(report: Report) -> None:
    """To the task."""
    ended = [len(SHOP.within(START, END, outcome)) for outcome in ("succeeded", "failed", "retried")]
    assert [report.successful_tasks, report.failed_tasks, report.retried_tasks] == ended
    expired = len(SHOP.within(START, END, "expired"))
    total = ended[0] + ended[1] + expired
    assert (report.total_tasks, report.revoked_tasks, report.rejected_tasks) == (total, expired, 0)
    assert report.error_rate_percent == pytest.approx(100 * ended[1] / total, rel=1e-5)


def test_expired_and_redelivered_runs_are_counted_apart(report: Report) -> None:
    """By task too; a redelivered run is no end."""
    expired = len(SHOP.within(START, END, "expired"))
    assert expired > 0
    assert (report.expired_tasks, report.redelivered_runs) == (expired, 2)
    assert {row.name: (row.ends.expired, row.ends.redelivered) for row in report.tasks} == {
        "mail.send": (expired, 0),
        "order.pay": (0, 2),
        "report.make": (0, 0),
    }


def test_entries_of_a_schedule_have_their_row(report: Report) -> None:
    """Due ten times and sent seven times; once beat tried and could not."""
    [row] = report.schedules
    assert (row.schedule, row.name) == ("five-minutes", "mail.digest")
    assert (row.due, row.sent, row.missed, row.unsent, row.succeeded, row.failed) == (10, 7, 3, 1, 5, 2)
    assert row.lateness_p95_ms is not None
    assert 0 < row.lateness_p95_ms <= 1000
    assert "mail.digest" not in [task.name for task in report.tasks]


def test_alerts_of_the_window_have_their_times(report: Report) -> None:
    """Critical first, each time to a step of the charts; one that still fires has no end."""
    step = report.history.step_seconds
    assert [(row.alert, row.severity, row.subject, row.times) for row in report.alerts] == [
        ("CeleryQueueHeadOld", "critical", "orders", 2),
        ("CeleryTaskSlow", "warning", "mail.send", 2),
    ]
    (first, second) = report.alerts[0].spans
    assert first.start.timestamp() == pytest.approx(NOON + 600, abs=step)
    assert first.end is not None
    assert first.end.timestamp() == pytest.approx(NOON + 1200, abs=step)
    assert second.start.timestamp() == pytest.approx(NOON + 2400, abs=step)
    assert second.end is None
    assert report.alerts[0].firing_seconds == pytest.approx(1200, abs=3 * step)


def test_alerts_about_other_tasks_are_left_out(client: PrometheusClient) -> None:
    """Of one task those about it and about queues are listed."""
    report = ask(client, filters=Filters(task="order.pay"))
    assert [row.alert for row in report.alerts] == ["CeleryQueueHeadOld"]


def test_each_queue_names_the_task_that_used_its_slots(report: Report) -> None:
    """With the share of its slots; of all busy time where its own tasks left the slots free."""
    busy = {name: SHOP.busy(START, END, name=name) for name in ("order.pay", "mail.send", "report.make")}
    users = {row.queue_name: row.slot_user for row in report.queues}
    found = {queue: (user.name, user.share_of) for queue, user in users.items() if user}
    shares = {queue: user.share_percent for queue, user in users.items() if user}

    assert found == {"mail": ("mail.send", "queue_slots"), "orders": ("mail.send", "busy_time")}
    assert shares["mail"] == pytest.approx(100 * busy["mail.send"] / (END - START), rel=0.01)
    assert shares["orders"] == pytest.approx(100 * busy["mail.send"] / sum(busy.values()), rel=1e-5)
    assert {row.queue_name: row.wait_target_ms for row in report.queues} == {"mail": None, "orders": 5000.0}


def test_each_task_and_queue_has_its_row(report: Report) -> None:
    """Rows add up to the whole, the most frequent first."""
    assert [row.name for row in report.tasks] == ["mail.send", "order.pay", "report.make"]
    pay = report.tasks[1]
    assert pay.ends.failed == len(SHOP.within(START, END, "failed", name="order.pay"))
    assert pay.ends.successful == len(SHOP.within(START, END, "succeeded", name="order.pay"))
    assert sum(row.ends.total for row in report.queues) == report.total_tasks
    assert {row.queue_name: row.avg_length for row in report.queues} == {"mail": 3.0, "orders": None}
    assert (report.slowest_tasks[0], report.most_failing_tasks[0]) == ("report.make", "order.pay")


def test_times_are_within_a_bucket(report: Report) -> None:
    """The mean is exact."""
    times = SHOP.within(START, END, "succeeded")
    assert report.avg_execution_time_ms == pytest.approx(1000 * fmean(times))
    assert_within_a_bucket(report.execution_time_ms, times)


def test_waits_are_within_a_bucket(report: Report) -> None:
    """Over all, by task and by queue; every run waited, however it ended."""
    waited = [(task, wait) for at, task, wait in SHOP.waited if START < at <= END]
    assert report.avg_wait_time_ms == pytest.approx(1000 * fmean(wait for _, wait in waited))
    assert_within_a_bucket(report.wait_time_ms, [wait for _, wait in waited])
    for row in report.tasks:
        assert_within_a_bucket(row.wait_time_ms, [wait for task, wait in waited if task.name == row.name])
    for queue in report.queues:
        assert_within_a_bucket(queue.wait_time_ms, [wait for task, wait in waited if task.queue == queue.queue_name])


def assert_within_a_bucket(found: Quantiles, seconds: list[float]) -> None:
    """Each quantile lies between the bounds of the bucket that holds the measured one."""
    for q, value in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        lower, upper = bucket_of(sorted(seconds)[math.ceil(q * len(seconds)) - 1])
        assert value is not None
        assert 1000 * lower <= value <= 1000 * upper


def busiest(step: int) -> tuple[float, int]:
    """The end of the aligned step in which most tasks ended, and how many; counted one by one."""
    ends = range(step * math.ceil(START / step) + step, int(END) + 1, step)
    return max(((end, SHOP.ends_in(end - step, end)) for end in ends), key=lambda found: found[1])


def test_the_peak_is_found_within_a_step(report: Report) -> None:
    """A rush of one minute."""
    at, most = busiest(60)
    assert report.peak is not None
    assert report.peak.source == "raw"
    assert abs(report.peak.at.timestamp() + 60 - at) <= 60
    assert report.peak_throughput == pytest.approx(most / 60)


def test_where_there_are_too_many_series_the_peak_is_the_recorded_one(client: PrometheusClient) -> None:
    """Of five-minute means; it equals the highest of them, at its time."""
    rates = HistoryReader(client, Scope(cluster="shop"), WINDOW, Filters()).rates(series=10**9)
    at, most = busiest(300)
    found = peak(rates)
    assert found is not None
    assert (found.source, found.step_seconds, found.at.timestamp() + 300) == ("recorded", 300.0, at)
    assert found.tasks_per_second == pytest.approx(most / 300, rel=1e-5)


def test_over_months_the_recorded_peak_is_a_mean_of_its_step(client: PrometheusClient) -> None:
    """Not whatever the last five minutes of a step were."""
    months = Window(START - 120 * 86_400, END)
    found = peak(HistoryReader(client, Scope(cluster="shop"), months, Filters()).rates(series=10**9))
    assert found is not None
    begin, step = found.at.timestamp(), found.step_seconds
    assert step == math.ceil(months.seconds / 10_000)
    assert begin - step <= busiest(60)[0] <= begin + 2 * step
    least, most = sorted(SHOP.ends_in(at, at + step) / step for at in (begin - 300, begin))
    assert least * 0.9 <= found.tasks_per_second <= most * 1.1


def test_every_advice_names_a_query_of_the_report(report: Report) -> None:
    """Under its evidence."""
    named = {one.query for case in CASES for advice in recommend(case[1]) for one in advice.evidence}
    assert named <= report.queries.keys()


def test_it_is_compared_with_the_window_before(report: Report) -> None:
    """Of the same length."""
    before = sum(len(SHOP.within(START - 3000, START, outcome)) for outcome in ("succeeded", "failed", "expired"))
    assert report.previous_window is not None
    assert report.total_tasks is not None
    assert report.previous_window.total_tasks == before
    change = 100 * (report.total_tasks - before) / before
    assert report.previous_window.total_change_percent == pytest.approx(change, rel=1e-5)


def test_it_is_not_compared_with_a_window_that_was_hardly_watched(client: PrometheusClient) -> None:
    """The exporter came when half of it was over: a rise would be none."""
    report = ask(client, Window(BEGIN + 1000, BEGIN + 3000))
    assert report.total_tasks == SHOP.ends_in(BEGIN + 1000, BEGIN + 3000)
    assert report.previous_window is None
    assert report.unknown["previous_window"].code == "not_watched_before"


def test_workers_and_budget(report: Report) -> None:
    """One and a half of four slots are busy; without an objective that somebody chose there is no error budget."""
    assert [(row.hostname, row.avg_busy_percent, row.runs_begun) for row in report.workers] == [("w1", 37.5, None)]
    assert report.error_budget is None


def test_whole_data_is_called_complete(report: Report) -> None:
    """Every scrape is there, and the window is long over."""
    quality = report.data_quality
    assert (quality.verdict, quality.notes, report.settled) == ("complete", (), True)
    assert (quality.scrapes_present_percent, quality.scrape_interval_seconds) == (100.0, EVERY)


def test_a_filter_narrows_all_of_it(client: PrometheusClient) -> None:
    """One task: its counts, its peak, its row."""
    report = ask(client, filters=Filters(task="report.make"))
    assert report.failed_tasks == len(SHOP.within(START, END, "failed", name="report.make"))
    assert [row.name for row in report.tasks] == ["report.make"]
    assert report.peak_throughput == pytest.approx(4 / 60)


def test_a_name_cannot_change_a_query(client: PrometheusClient) -> None:
    """Such a task did not run."""
    assert ask(client, filters=Filters(task='x"} or vector(1) #')).total_tasks == 0


@pytest.mark.parametrize("hours", [-500, 5])
def test_a_window_without_scrapes_has_no_numbers(client: PrometheusClient, hours: int) -> None:
    """Beyond retention, or before anything was scraped: null, and why."""
    report = ask(client, Window(NOON + hours * 3600, NOON + hours * 3600 + 600))
    assert (report.total_tasks, report.avg_execution_time_ms, report.peak_throughput) == (None, None, None)
    assert report.unknown["total_tasks"].code == "no_scrapes"
    assert report.data_quality.verdict == "unusable"


def test_a_year_may_be_asked_for(client: PrometheusClient) -> None:
    """Prometheus holds little of a year: that is counted, and the report says how little it is."""
    report = ask(client, Window(END - 366 * 86_400.0, END))
    assert report.total_tasks == SHOP.ends_in(0, END)
    assert report.data_quality.verdict == "limited"
    assert (report.data_quality.scrapes_present_percent or 100) < 1


def test_half_a_window_is_called_limited(client: PrometheusClient) -> None:
    """The numbers are those of what was scraped, and the share is reported."""
    report = ask(client, Window(NOON + 1800, NOON + 5400))
    assert report.data_quality.verdict == "limited"
    assert report.data_quality.scrapes_present_percent == pytest.approx(50, abs=1)
    assert [note.code for note in report.data_quality.notes] == ["scrapes_missing"]


def test_waiting_ends_when_the_window_is_settled(client: PrometheusClient) -> None:
    """Half a minute after its end, at a scrape every 15 s."""
    now = [END + 10.0]
    service = ReportService(client, Scope(), clock=lambda: now[-1])
    service.wait_until_settled(WINDOW, sleep=lambda seconds: now.append(now[-1] + seconds))
    assert now[-1] == END + 30.0
