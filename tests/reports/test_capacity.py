"""``celerymeter capacity``: an hour of known demand on a real Prometheus, and what cannot be known of others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
from tests.engines import Canned, start_engine

from celerymeter.cli import main

NOON = 1_700_000_000.0 - 1_700_000_000.0 % 86_400 + 43_200
EVERY = 15.0
TARGET = {"cluster": "shop", "job": "celerymeter", "instance": "a"}
HOUR = ["--from", "2023-11-14T12:00:00Z", "--to", "2023-11-14T13:00:00Z"]

pytestmark = pytest.mark.integration


def steady(queue: str, *, every_scrape: int, run: float, slots: int, shared: bool = False) -> list[Canned]:
    """Return the series of a queue in which equally long tasks start at once."""
    times = [NOON - 600 + number * EVERY for number in range(300)]
    task = {**TARGET, "name": f"{queue}.do", "queue_name": queue}
    at_queue = {**TARGET, "queue_name": queue}

    def counter(name: str, each: float, **labels: str) -> Canned:
        return Canned(name, {**task, **labels}, [(at, number * each) for number, at in enumerate(times)])

    def gauge(name: str, value: float, labels: dict[str, str]) -> Canned:
        return Canned(name, labels, [(at, value) for at in times])

    counters = ("sent", "received", "started", "succeeded")
    found = [counter(f"celery_task_{what}_total", every_scrape) for what in counters]
    found.append(counter("celery_task_busy_seconds_total", every_scrape * run))
    for bound in (1.0, 5.0, 30.0, math.inf):
        le = f"{bound:g}".replace("inf", "+Inf")
        found.append(counter("celery_task_runtime_seconds_bucket", every_scrape * (run <= bound), le=le))
        found.append(counter("celery_task_wait_seconds_bucket", every_scrape, le=le))
    found.append(gauge("celery_queue_length", 0.0, at_queue))
    if slots:
        found.append(gauge("celery_queue_pool_slots", slots, at_queue))
    if slots and not shared:
        worker = {**TARGET, "hostname": f"{queue}@host"}
        found += [gauge("celery_worker_pool_size", slots, worker), gauge("celery_worker_up", 1.0, worker)]
    return found


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Prometheus with three queues."""
    times = [NOON - 600 + number * EVERY for number in range(300)]
    series = [
        Canned("celerymeter_start_time_seconds", TARGET, [(at, NOON - 700) for at in times]),
        Canned("celerymeter_build_info", TARGET, [(at, 1.0) for at in times]),
        *steady("orders", every_scrape=30, run=2.0, slots=10),
        *steady("mail", every_scrape=15, run=0.0, slots=0),
        Canned(
            "celery:wait_target:effective", {"cluster": "shop", "queue_name": "orders"}, [(at, 30.0) for at in times]
        ),
    ]
    server, url = start_engine("prometheus", tmp_path_factory.mktemp("capacity") / "prometheus", series)
    with server:
        yield url


def asked(prometheus: str, *words: str) -> list[str]:
    """Return the words of a command line."""
    return ["capacity", "--prometheus-url", prometheus, *HOUR, *words]


def test_the_slots_and_what_they_would_have_saved(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two tasks a second of two seconds each keep four slots busy; ten were there."""
    assert main(asked(prometheus, "--queue", "orders", "--format", "json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["tasks"] == 30 * 240
    assert (answer["load_slots"], answer["mean_run_seconds"], answer["arrivals_from"]) == (4.0, 2.0, "sent")
    assert answer["wait_target_seconds"] == 30.0  # the recorded one
    assert 4 <= answer["slots_at_least"] <= answer["slots"] <= answer["slots_at_most"] <= 5
    assert (answer["present_slots"], answer["present_slot_hours"]) == (10.0, 10.0)
    assert answer["saved_slot_hours"] == 10.0 - answer["slots"]
    assert (answer["measured_percent"], answer["replayed_percent"]) == (100.0, 100.0)
    assert answer["notes"] == []


def test_a_target_shorter_than_a_scrape_has_wide_bounds(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer says so: thirty tasks may have come at once, or evenly spread."""
    assert main(asked(prometheus, "--queue", "orders", "--wait-target", "0.1s", "--format", "json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["slots_at_least"] <= 7
    assert answer["slots_at_most"] >= 20
    assert [note["code"] for note in answer["notes"]] == ["resolution_coarse"]


@pytest.mark.parametrize(
    ("language", "sentence"),
    [("en", "within 60 s: 4 (between"), ("zh-TW", "4 個執行槽可讓 95.0% 的任務在 60 s 內開始")],
)
def test_for_people(prometheus: str, language: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In both languages."""
    assert main(asked(prometheus, "--queue", "orders", "--wait-target", "60s", "--lang", language)) == 0
    assert sentence in capsys.readouterr().out


@pytest.mark.parametrize(
    ("queue", "reason"), [("mail", "unknown how long they take"), ("nobody's", "No task arrived in the queue")]
)
def test_what_cannot_be_known_has_its_reason(
    prometheus: str, queue: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 1."""
    assert main(asked(prometheus, "--queue", queue, "--wait-target", "30s")) == 1
    answer = capsys.readouterr().out
    assert "cannot be known, because: " in answer
    assert reason in answer


def test_nothing_was_scraped(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Another window has no data."""
    before = ["--from", "2023-11-01T12:00:00Z", "--to", "2023-11-01T13:00:00Z", "--wait-target", "1s"]
    assert main(["capacity", "--prometheus-url", prometheus, "--queue", "orders", *before]) == 1
    assert "older than the retention" in capsys.readouterr().out


def test_a_queue_without_a_target_needs_one(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, status 2."""
    assert main(asked(prometheus, "--queue", "mail")) == 2
    assert "--wait-target" in capsys.readouterr().err


def test_the_hour_is_the_one_of_the_series() -> None:
    """The constants fit together."""
    assert datetime.fromtimestamp(NOON, timezone.utc).isoformat() == "2023-11-14T12:00:00+00:00"


def test_the_report_has_a_section(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the queue that has a target, with the same answer."""
    report = ["report", "--prometheus-url", prometheus, *HOUR]
    assert main([*report, "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["capacity"]
    assert (row["queue_name"], row["wait_target_ms"], row["present_slots"]) == ("orders", 30_000.0, 10.0)
    assert 4 <= row["slots_at_least"] <= row["slots"] <= row["slots_at_most"] <= 5
    assert row["saved_slot_hours"] == 10.0 - row["slots"]
    for form, heading in (("md", "## 達到等待目標所需的執行槽"), ("html", "<h2>達到等待目標所需的執行槽</h2>")):
        assert main([*report, "--format", form, "--lang", "zh-TW"]) == 0
        assert heading in capsys.readouterr().out
    assert main([*report, "--format", "csv"]) == 0
    assert ",capacity,orders," in capsys.readouterr().out
