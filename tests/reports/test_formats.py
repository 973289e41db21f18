"""A report as a file says the same in every form, and nothing in it is taken for markup or a formula."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.reports import samples

from celerymeter.reports.formatting import LANGUAGES, in_language
from celerymeter.reports.render import CONTENT_TYPES, from_json, render, to_json
from celerymeter.reports.report import AlertRow, AlertSpan, History, Note, Report, ScheduleRow, SlotUser

EVIL = '=<script>alert("|")</script>'


def busy() -> Report:
    """A report with a curve, and a task of an evil name."""
    curve = tuple((float(at), at % 7 + 0.5) for at in range(0, 3600, 60))
    return samples.report(
        total_tasks=1200,
        tasks=(samples.task(EVIL, successful=1200),),
        history=History(60.0, throughput=curve, queue_lengths={EVIL: curve}),
    )


def test_json_can_be_read_again() -> None:
    """To the same report."""
    assert from_json(to_json(busy())) == busy()


def test_html_fetches_and_runs_nothing() -> None:
    """Whatever tasks are called."""
    page = render(busy(), "html").decode()
    assert not re.search(r"<script|<link|<img|src=|@import|url\(", page)
    assert "&lt;script&gt;" in page
    assert page.count("<svg") == 2
    assert "1,200" in page


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("form", CONTENT_TYPES)
def test_an_empty_window_is_a_whole_report(form: str, language: str) -> None:
    """Without drawings, and with the reasons."""
    text = render(in_language(samples.report(), language), form).decode()
    assert "<svg" not in text
    assert form == "csv" or ("沒有任務成功" if language == "zh-TW" else "No task succeeded") in text


def test_html_says_at_its_top_what_limits_it() -> None:
    """Before any number; without counts it says why."""
    usual = samples.report().data_quality
    notes = Note("restarted"), Note("late_base")
    limited = samples.report(total_tasks=1, data_quality=replace(usual, verdict="limited", notes=notes))
    unusable = samples.unknowable(data_quality=replace(usual, verdict="unusable"))
    for report, words in ((limited, "restarted"), (limited, "an hour older"), (unusable, "no scrape")):
        assert words in render(report, "html").decode().partition("<dl")[0]


@pytest.mark.parametrize("form", CONTENT_TYPES)
def test_schedules_are_in_every_form(form: str) -> None:
    """Reports have that section only if beat has the hook."""
    entry = ScheduleRow("nightly-report", "reports.build", 12, 9, 3, 1, 7, 2, 250.0)
    text = render(samples.report(schedules=(entry,)), form).decode()
    assert "nightly-report" in text
    assert "reports.build" in text
    assert form == "json" or "Schedules" not in render(samples.report(), form).decode()


def test_csv_is_one_table_without_formulas() -> None:
    """A name that begins like one is marked as text; the unknown is empty."""
    rows = list(csv.DictReader(io.StringIO(render(busy(), "csv").decode())))
    assert [(row["kind"], row["name"]) for row in rows] == [("all", ""), ("task", f"'{EVIL}")]
    assert (rows[0]["total"], rows[0]["avg_execution_ms"]) == ("1200", "")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("form", CONTENT_TYPES)
def test_alerts_expired_tasks_and_slot_users_are_in_every_form(form: str, language: str) -> None:
    """Names may be evil there too."""
    begins = samples.report().time_range.start
    spans = (
        AlertSpan(begins, begins + timedelta(minutes=10)),
        AlertSpan(begins + timedelta(minutes=50), None),
    )
    user = SlotUser(EVIL, 87.5, "queue_slots")
    found = samples.report(
        expired_tasks=4321,
        redelivered_runs=765,
        alerts=(AlertRow("CeleryQueueHeadOld", "critical", EVIL, 1200.0, 2, spans),),
        queues=(samples.queue("mail", p95=9.0, user=user),),
    )
    text = render(in_language(found, language), form).decode()

    for number in (4321, 765):
        assert str(number) in text or f"{number:,}" in text
    assert "CeleryQueueHeadOld" in text
    if form == "csv":
        assert f"'{EVIL[:9]}" in text
    if form == "md":
        assert "<script>" not in text.replace("\\<", "")
    if form == "html":
        assert "<script>" not in text
        assert text.count('<i class="critical"') == 2
        assert "left:0.0%;width:16.67%" in text
        assert "left:83.33%;width:16.67%" in text
        assert ("仍在觸發" if language == "zh-TW" else "20 min, still firing") in text
    if form in ("html", "md"):
        assert "87.5%" in text


def test_csv_gives_each_time_of_an_alert_a_row() -> None:
    """With its own start and end; the end of one that still fires is empty."""
    begins = samples.report().time_range.start
    alert = AlertRow("CeleryTaskSlow", "warning", "add", 60.0, 1, (AlertSpan(begins + timedelta(minutes=59), None),))
    rows = list(csv.DictReader(io.StringIO(render(samples.report(alerts=(alert,)), "csv").decode())))

    assert [(row["kind"], row["name"], row["start"], row["end"], row["severity"]) for row in rows[1:]] == [
        ("alert", "CeleryTaskSlow", "2026-01-31T12:59:00+00:00", "", "warning")
    ]


def test_markdown_keeps_its_tables() -> None:
    """A name may hold what Markdown would read."""
    lines = render(busy(), "md").decode().splitlines()
    (row,) = (line for line in lines if "script" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 7
    assert "<script>" not in row.replace("\\<", "")
