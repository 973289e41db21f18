"""``celerymeter capacity``: an hour of known demand on a real Prometheus, and what cannot be known of others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from tests.engines import Canned, start_engine

from celerymeter.cli import main

NOON = 1_700_000_000.0 - 1_700_000_000.0 % 86_400 + 43_200
EVERY = 15.0
TARGET = {"cluster": "shop", "job": "celerymeter", "instance": "a"}
DAY_AFTER, TWO_DAYS_AFTER = NOON + 86_400, NOON + 2 * 86_400
LONG_HOUR = [NOON - 600 + number * EVERY for number in range(300)]
HOUR = ["--from", "2023-11-14T12:00:00Z", "--to", "2023-11-14T13:00:00Z"]

pytestmark = pytest.mark.integration


def scrapes(start: float, end: float) -> list[float]:
    """Return the times of scrapes from start to end."""
    return [start + number * EVERY for number in range(int((end - start) / EVERY) + 1)]


def exporter(times: list[float], *, target: dict[str, str]) -> list[Canned]:
    """Return the series of an exporter that started shortly before its first scrape."""
    return [
        Canned("celerymeter_start_time_seconds", target, [(at, times[0] - 10) for at in times]),
        Canned("celerymeter_build_info", target, [(at, 1.0) for at in times]),
    ]


def steady(
    queue: str,
    *,
    every_scrape: int,
    run: float,
    slots: int,
    shared: bool = False,
    times: list[float] = LONG_HOUR,
    target: dict[str, str] = TARGET,
) -> list[Canned]:
    """Return the series of a queue in which equally long tasks start at once."""
    task = {**target, "name": f"{queue}.do", "queue_name": queue}
    at_queue = {**target, "queue_name": queue}

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
        worker = {**target, "hostname": f"{queue}@host"}
        found += [gauge("celery_worker_pool_size", slots, worker), gauge("celery_worker_up", 1.0, worker)]
    return found


def nightly() -> list[Canned]:
    """Return the counters of a queue that appear with their first 600 tasks; 10 more arrive after a quarter."""
    task = {**TARGET, "name": "nightly.do", "queue_name": "nightly"}
    counts = [(at, 600.0 if at < NOON + 1500 else 610.0) for at in LONG_HOUR if at >= NOON + 600]
    counters = ("sent", "received", "started", "succeeded")
    found = [Canned(f"celery_task_{what}_total", task, counts) for what in counters]
    return [*found, Canned("celery_task_busy_seconds_total", task, [(at, 2 * count) for at, count in counts])]


def moved() -> list[Canned]:
    """Return an hour, a day later, in whose middle another exporter replaced the first; each restarted once."""
    other = {**TARGET, "instance": "b"}
    found: list[Canned] = []
    for target, start, end in (
        (TARGET, DAY_AFTER - 600, DAY_AFTER + 1800),
        (other, DAY_AFTER + 1815, DAY_AFTER + 4500),
    ):
        times = scrapes(start, end)
        found += exporter(times, target=target)
        found += steady("orders", every_scrape=30, run=2.0, slots=10, times=times, target=target)
    return found


def two_clusters() -> list[Canned]:
    """Return an hour, two days later, of clusters of which the small one ends half an hour before the other."""
    found: list[Canned] = []
    for cluster, every_scrape, end in (("big", 30, 3600), ("small", 3, 1800)):
        target, times = {**TARGET, "cluster": cluster}, scrapes(TWO_DAYS_AFTER, TWO_DAYS_AFTER + end)
        found += exporter(times, target=target)
        found += steady("orders", every_scrape=every_scrape, run=2.0, slots=10, times=times, target=target)
    return found


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Prometheus with an hour of three queues, and hours on the next days."""
    series = [
        *exporter(LONG_HOUR, target=TARGET),
        *steady("orders", every_scrape=30, run=2.0, slots=10),
        *steady("mail", every_scrape=15, run=0.0, slots=0),
        Canned(
            "celery:wait_target:effective",
            {"cluster": "shop", "queue_name": "orders"},
            [(at, 30.0) for at in LONG_HOUR],
        ),
        *nightly(),
        *moved(),
        *two_clusters(),
    ]
    server, url = start_engine("prometheus", tmp_path_factory.mktemp("capacity") / "prometheus", series)
    with server:
        yield url


def asked(prometheus: str, *words: str, window: list[str] = HOUR) -> list[str]:
    """Return the words of a command line."""
    return ["capacity", "--prometheus-url", prometheus, *window, *words]


def answered(prometheus: str, capsys: pytest.CaptureFixture[str], *words: str, window: list[str] = HOUR) -> Any:
    """Return the answer as JSON, and check that it is known."""
    assert main(asked(prometheus, "--format", "json", *words, window=window)) == 0
    return json.loads(capsys.readouterr().out)


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
    ("queue", "reason"), [("mail", "unknown how long they take"), ("nobody's", "no queue of this name")]
)
def test_what_cannot_be_known_has_its_reason(
    prometheus: str, queue: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 1."""
    assert main(asked(prometheus, "--queue", queue, "--wait-target", "30s")) == 1
    answer = capsys.readouterr().out
    assert "cannot be known, because: " in answer
    assert reason in answer


@pytest.mark.parametrize(
    ("options", "codes", "names"),
    [
        (["--queue", "Orders"], ["queue_unknown"], [["orders"]]),
        (["--task", "order.do"], ["task_unknown"], [["orders.do"]]),
        (["--task", "zzz", "--queue", "Mail"], ["task_unknown", "queue_unknown"], [[], ["mail"]]),
        (["--task", "mail.do", "--queue", "orders"], [], []),
    ],
)
def test_a_report_says_that_there_is_no_such_name(
    prometheus: str, options: list[str], codes: list[str], names: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """With names like it."""
    assert main(["report", "--prometheus-url", prometheus, *HOUR, *options]) == 0
    quality = json.loads(capsys.readouterr().out)["data_quality"]
    assert [note["code"] for note in quality["notes"]] == codes
    assert [note["names"] for note in quality["notes"]] == names
    assert all(name in note["text"] for note in quality["notes"] for name in note["names"])
    assert quality["verdict"] == ("limited" if codes else "complete")


def test_a_quiet_queue_is_known(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its counters are there, though nothing ended; its report calls the busy time that of all tasks."""
    quiet = ["--from", "2023-11-14T12:12:00Z", "--to", "2023-11-14T12:20:00Z"]
    options = ["report", "--prometheus-url", prometheus, *quiet, "--format", "md"]
    assert main([*options, "--queue", "nightly"]) == 0
    report = capsys.readouterr().out
    assert "No task ended in this window." in report
    assert "of this name" not in report
    assert "| Busy with all tasks |" in report
    assert main(options) == 0
    assert "| Busy |" in capsys.readouterr().out
    assert main(asked(prometheus, "--queue", "nightly", "--wait-target", "30s", window=quiet)) == 1
    assert "No task arrived in the queue" in capsys.readouterr().out


def test_nothing_was_scraped(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Another window has no data."""
    before = ["--from", "2023-11-01T12:00:00Z", "--to", "2023-11-01T13:00:00Z", "--wait-target", "1s"]
    assert main(["capacity", "--prometheus-url", prometheus, "--queue", "orders", *before]) == 1
    assert "older than the retention" in capsys.readouterr().out


def test_the_tasks_with_which_a_queue_appears_count(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In the replay and in the peak of a report: the exporter was scraped before, and had none of them."""
    answer = answered(prometheus, capsys, "--queue", "nightly", "--wait-target", "60s")
    assert (answer["tasks"], answer["arrivals_from"]) == (610, "sent")
    assert main(["report", "--prometheus-url", prometheus, *HOUR, "--queue", "nightly"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["total_tasks"], report["peak_throughput"]) == (610, 10.0)


def test_an_exporter_that_replaces_another_goes_on(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As when its pod gets another address: the tasks of both halves are replayed."""
    window = ["--from", "2023-11-15T12:00:00Z", "--to", "2023-11-15T13:00:00Z"]
    answer = answered(prometheus, capsys, "--queue", "orders", "--wait-target", "30s", window=window)
    assert answer["tasks"] == pytest.approx(30 * 240, abs=60)
    assert answer["load_slots"] == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize("hours", ["T12:00:00Z/T13:00:00Z", "T06:00:00Z/T13:45:00Z", "T06:00:00Z/T14:30:00Z"])
def test_clusters_are_never_mixed(prometheus: str, hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where one or both of them were silent in the window's last hour, one must be chosen all the same."""
    start, end = (f"2023-11-16{hour}" for hour in hours.split("/"))
    window = ["--from", start, "--to", end]
    assert main(asked(prometheus, "--queue", "orders", "--wait-target", "30s", window=window)) == 2
    assert "big, small" in capsys.readouterr().err
    assert main(["report", "--prometheus-url", prometheus, *window]) == 2
    assert "big, small" in capsys.readouterr().err
    answer = answered(
        prometheus, capsys, "--queue", "orders", "--wait-target", "30s", "--cluster", "small", window=window
    )
    assert answer["tasks"] == pytest.approx(3 * 120, abs=3)


def test_slot_hours_are_of_the_time_that_was_scraped(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In a week of which Prometheus has 75 minutes; with both units over the same time."""
    week = ["--from", "2023-11-07T13:00:00Z", "--to", "2023-11-14T13:00:00Z"]
    answer = answered(prometheus, capsys, "--queue", "orders", window=week)
    assert answer["present_slot_hours"] == pytest.approx(10 * 70 / 60, rel=0.01)
    assert answer["slot_hours"] == pytest.approx(answer["slots"] * 70 / 60, rel=0.01)
    assert answer["load_slots"] == pytest.approx(4.0, rel=0.01)
    assert answer["scrapes_present_percent"] == pytest.approx(100 * 70 / (7 * 24 * 60), rel=0.01)
    assert [note["code"] for note in answer["notes"]] == ["time_left_out"]
    assert "0.69" in answer["notes"][0]["text"]


def test_what_cannot_be_known_has_notes_too(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """About the data of the window."""
    week = ["--from", "2023-11-07T13:00:00Z", "--to", "2023-11-14T13:00:00Z"]
    assert main(asked(prometheus, "--queue", "mail", "--wait-target", "30s", window=week)) == 1
    assert "left out of the replay" in capsys.readouterr().out


def test_a_queue_without_a_target_needs_one(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, status 2."""
    assert main(asked(prometheus, "--queue", "mail")) == 2
    assert "--wait-target" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["0.95", "1", "0", "101", "nan"])
def test_a_share_is_no_percentage(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As 0.95% it would give an answer that nobody asked for."""
    assert main(asked("http://127.0.0.1:1", "--queue", "orders", "--objective", share)) == 2
    assert "a percentage such as 95" in capsys.readouterr().err


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
