"""The verdict on a window's data names each limit, and is never better than the data."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.reports import samples

from celerymeter.prometheus.counters import Counts, Key, Target
from celerymeter.reports.counting import ExporterProcess, WindowCounts
from celerymeter.reports.formatting import in_language
from celerymeter.reports.quality import judge, settled
from celerymeter.reports.report import Note
from celerymeter.reports.request import Window
from celerymeter.reports.texts import NOTES, VERDICTS

HOUR = Window(0.0, 3600.0)
EXPORTER = Target("", "celerymeter", "a")
WHOLE = ExporterProcess(EXPORTER, -100.0, tuple(float(at) for at in range(-10, 3601, 10)))


def counted(*processes: ExporterProcess, **what: float) -> WindowCounts:
    """A window in which so much was counted."""
    return WindowCounts(Counts({Key(name): value for name, value in what.items()}), processes or (WHOLE,))


def codes(found: WindowCounts) -> tuple[str, list[str]]:
    """The verdict and its reasons."""
    quality = judge(found, HOUR, [])
    return quality.verdict, [note.code for note in quality.notes]


def test_whole_data_is_complete() -> None:
    """Every scrape, nothing missed."""
    assert codes(counted()) == ("complete", [])


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (counted(celerymeter_events_missed_total=2), "events_missed"),
        (counted(celerymeter_series_folded_total=1), "series_folded"),
        (counted(ExporterProcess(EXPORTER, -100.0, WHOLE.scrapes[:300])), "scrapes_missing"),
        (WindowCounts(Counts(), (WHOLE,), late_bases=(ExporterProcess(EXPORTER, -9e4, (0.0,)),)), "late_base"),
        (WindowCounts(Counts(), (WHOLE,), warnings=("partial answer",)), "query_warnings"),
    ],
)
def test_each_limit_is_named(found: WindowCounts, code: str) -> None:
    """And the data is called limited."""
    assert codes(found) == ("limited", [code])


def test_a_restart_is_counted_and_named() -> None:
    """Two processes of one exporter."""
    processes = (
        ExporterProcess(EXPORTER, -100.0, WHOLE.scrapes[:200]),
        ExporterProcess(EXPORTER, 1980.0, WHOLE.scrapes[200:]),
    )
    assert codes(counted(*processes)) == ("limited", ["restarted"])
    assert judge(counted(*processes), HOUR, []).exporter_restarts == 1


def test_exporters_that_disagree_lower_the_verdict() -> None:
    """By more than tasks that end while one has been scraped and the other has not."""
    other = ExporterProcess(Target("", "celerymeter", "b"), -100.0, tuple(at + 3 for at in WHOLE.scrapes))
    both = replace(counted(WHOLE, other, celery_task_succeeded_total=3600), disagreement=40.0)
    assert codes(both) == ("complete", [])
    assert codes(replace(both, disagreement=41.0)) == ("limited", ["exporters_disagree"])
    assert judge(replace(both, disagreement=41.0), HOUR, []).disagreement_tasks == 41


def test_a_gap_is_measured() -> None:
    """From the scrape before it to the scrape after it; half an hour of scrapes is gone."""
    process = ExporterProcess(EXPORTER, -100.0, tuple(at for at in WHOLE.scrapes if not 600 < at < 2400))
    quality = judge(counted(process), HOUR, [])
    assert quality.longest_gap_seconds == 1800
    assert quality.scrapes_present_percent == pytest.approx(50, abs=1)


def test_a_single_scrape_is_not_a_whole_window() -> None:
    """The interval is unknown then, but it is not an hour."""
    alone = counted(ExporterProcess(EXPORTER, 3580.0, (3590.0,)))
    assert codes(alone) == ("limited", ["scrapes_missing"])


def test_without_counts_it_is_unusable() -> None:
    """Whatever else there is."""
    assert codes(WindowCounts(None, (WHOLE,)))[0] == "unusable"


def test_a_window_settles_after_two_scrapes_and_half_a_minute() -> None:
    """Whichever is longer."""
    assert not settled(HOUR, now=3629.0, scrape_interval=10.0)
    assert settled(HOUR, now=3630.0, scrape_interval=10.0)
    assert not settled(HOUR, now=3719.0, scrape_interval=60.0)


def test_a_report_says_how_many_scrapes_there_are() -> None:
    """In the sentence about those that are missing."""
    quality = judge(counted(ExporterProcess(EXPORTER, -100.0, WHOLE.scrapes[:300])), HOUR, [])
    report = in_language(samples.report(data_quality=quality), "en")
    assert f"{quality.scrapes_present_percent:.3g}% are there" in report.data_quality.notes[0].text


@pytest.mark.parametrize("language", ["en", "zh-TW"])
def test_every_reason_and_verdict_has_words(language: str) -> None:
    """In both languages."""
    report = in_language(samples.report(unknown={code: Note(code) for code in NOTES}), language)
    assert all(note.text for note in report.unknown.values())
    assert report.data_quality.words in VERDICTS["complete"]
