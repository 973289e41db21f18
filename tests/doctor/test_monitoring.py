"""The checks of Prometheus, of several exporters in it, and of alerting: each fault alone, and nearly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from celerymeter.doctor.checks import diagnose
from celerymeter.doctor.evidence import AlertmanagerEvidence, Evidence, Failure, RulesEvidence, ScrapeTarget

from .cases import NOW, SCRAPED, STARTED, TARGET, WELL, prometheus

RULES = WELL.prometheus.rules if WELL.prometheus and WELL.prometheus.rules else RulesEvidence()
REFUSED = Failure("refused", "Connection refused")
SECOND = replace(SCRAPED, instance="f:9808", started=STARTED + 7)
WRONG = ScrapeTarget("http://e:9809/metrics", True, "", job="celery", instance="e:9809")


def found(evidence: Evidence) -> list[tuple[str, str]]:
    """Severity and code of everything found."""
    return [(finding.severity, finding.code) for finding in diagnose(evidence)]


def exporter(**changes: Any) -> Evidence:
    """All is well but for the exporter's answer."""
    assert WELL.exporter
    return replace(WELL, exporter=replace(WELL.exporter, **changes))


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        pytest.param(
            prometheus(exporters=(replace(SCRAPED, started=STARTED - 9000),)),
            ("fault", "exporter-not-scraped"),
            id="another one is scraped",
        ),
        pytest.param(
            prometheus(exporters=(), targets=(replace(TARGET, healthy=False, scraped=False),)),
            ("fault", "exporter-not-scraped"),
            id="not yet scraped",
        ),
        pytest.param(prometheus(exporters=(), targets=(WRONG,)), ("fault", "scrape-wrong-target"), id="the wrong port"),
        pytest.param(
            prometheus(exporters=(replace(SCRAPED, names=SCRAPED.names - {"celery_worker_up"}),)),
            ("fault", "metrics-dropped"),
            id="a family dropped",
        ),
        pytest.param(
            prometheus(exporters=(replace(SCRAPED, names=SCRAPED.names - {"celery_task_wait_seconds_bucket"}),)),
            ("fault", "metrics-dropped"),
            id="buckets dropped",
        ),
        pytest.param(prometheus(renamed=frozenset({"name"})), ("fault", "labels-renamed"), id="exported_name"),
        pytest.param(prometheus(unlabelled=frozenset({"hostname"})), ("fault", "labels-dropped"), id="no hostname"),
        pytest.param(prometheus(targets=(replace(TARGET, interval=300),)), ("hint", "scrape-rare"), id="rarely"),
        pytest.param(prometheus(targets=(replace(TARGET, took=6.0),)), ("hint", "scrape-slow"), id="slowly"),
        pytest.param(prometheus(clock_offset=-40.0), ("hint", "server-clock-skew"), id="Prometheus' clock"),
        pytest.param(
            exporter(clock_offset=40.0, at=NOW + 40), ("hint", "server-clock-skew"), id="the exporter's clock"
        ),
        pytest.param(
            prometheus(exporters=(SCRAPED, replace(SCRAPED, job="pods"))),
            ("fault", "exporter-scraped-twice"),
            id="in two jobs",
        ),
        pytest.param(
            prometheus(exporters=(SCRAPED, replace(SECOND, workers=frozenset({"x@y"})))),
            ("fault", "clusters-mixed"),
            id="two brokers, one name",
        ),
        pytest.param(
            prometheus(exporters=(SCRAPED, replace(SECOND, broker_up=False))),
            ("fault", "exporter-behind"),
            id="one of two without broker",
        ),
        pytest.param(
            prometheus(exporters=(SCRAPED, replace(SECOND, last_event=NOW - 100))),
            ("fault", "exporter-behind"),
            id="one of two hears nothing",
        ),
        pytest.param(prometheus(others=frozenset({"old:9808"})), ("hint", "other-exporter"), id="another program"),
        pytest.param(prometheus(rules=RulesEvidence()), ("hint", "rules-not-loaded"), id="no rules"),
        pytest.param(
            prometheus(rules=replace(RULES, loaded=frozenset({"CeleryNoWorkers"}))),
            ("hint", "rules-not-loaded"),
            id="some rules",
        ),
        pytest.param(prometheus(rules=replace(RULES, limits=False)), ("fault", "limits-not-loaded"), id="no limits"),
        pytest.param(
            prometheus(rules=replace(RULES, failing={"CeleryNoWorkers": "many-to-many"})),
            ("fault", "rules-failing"),
            id="a rule fails",
        ),
        pytest.param(prometheus(alertmanagers=()), ("fault", "no-alertmanager"), id="no Alertmanager"),
        pytest.param(
            prometheus(alertmanagers=(AlertmanagerEvidence("http://a", REFUSED, 3),)),
            ("fault", "alertmanager-unreachable"),
            id="Alertmanager away",
        ),
        pytest.param(
            prometheus(alertmanagers=(AlertmanagerEvidence("http://a", REFUSED),)),
            ("hint", "alertmanager-unreachable"),
            id="Alertmanager away from here",
        ),
        pytest.param(
            prometheus(alertmanagers=(AlertmanagerEvidence("http://a", None, 3),)),
            ("hint", "alertmanager-unreachable"),
            id="Alertmanager was away",
        ),
    ],
)
def test_each_fault_is_found_alone(evidence: Evidence, expected: tuple[str, str]) -> None:
    """One thing is wrong, and one line says so."""
    assert found(evidence) == [expected]


@pytest.mark.parametrize(
    "evidence",
    [
        pytest.param(
            replace(
                prometheus(exporters=(replace(SCRAPED, started=STARTED - 9000),)),
                exporter=exporter(at=STARTED + 60, clock_offset=None).exporter,
                broker=replace(WELL.broker, watch=replace(WELL.broker.watch, senders=WELL.broker.watch.workers)),
            ),
            id="an exporter that has just been restarted",
        ),
        pytest.param(prometheus(targets=(replace(TARGET, interval=60),)), id="every minute"),
        pytest.param(prometheus(targets=(replace(TARGET, took=4.9),)), id="just under half the time-out"),
        pytest.param(prometheus(targets=(TARGET, replace(WRONG, interval=3600))), id="somebody else's target"),
        pytest.param(prometheus(clock_offset=4.9), id="a clock that is nearly right"),
        pytest.param(exporter(clock_offset=None), id="a page without a date"),
        pytest.param(prometheus(exporters=(SCRAPED, SECOND)), id="two exporters of one broker"),
        pytest.param(
            prometheus(
                exporters=(SCRAPED, replace(SECOND, cluster="eu", workers=frozenset({"x@y"}), last_event=NOW - 90))
            ),
            id="two clusters",
        ),
        pytest.param(
            prometheus(exporters=(SCRAPED, replace(SECOND, workers=frozenset()))), id="one that sees no worker yet"
        ),
        pytest.param(
            prometheus(exporters=(replace(SCRAPED, broker_up=False),)), id="no broker: the page says so itself"
        ),
        pytest.param(prometheus(rules=RulesEvidence(RULES.loaded, {}, True), alertmanagers=None), id="unknown"),
    ],
)
def test_what_is_nearly_a_fault_is_none(evidence: Evidence) -> None:
    """The limits are where they are meant to be."""
    assert found(evidence) == []


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        ('Get "http://e:9808/metrics": dial tcp 10.0.0.1:9808: connect: connection refused', "--listen"),
        ('Get "http://e:9808/metrics": context deadline exceeded', "scrape_timeout"),
        ("server returned HTTP status 401 Unauthorized", "basic_auth"),
        ('Get "https://e:9808/metrics": http: server gave HTTP response to HTTPS client', "scheme: http"),
        ('Get "https://e:9808/metrics": x509: certificate signed by unknown authority', "tls_config"),
        ('Get "http://e:9808/metrics": dial tcp: lookup e: no such host', "name"),
        ("sample limit exceeded", "sample_limit"),
        ("something new", "/targets"),
    ],
)
def test_the_fix_of_a_failing_scrape_fits_its_error(error: str, fix: str) -> None:
    """In Prometheus' own words, and what to do about these."""
    evidence = prometheus(exporters=(), targets=(replace(TARGET, healthy=False, error=error),))
    (finding,) = diagnose(evidence)
    assert finding.code == "scrape-failing"
    assert error in finding.problem
    assert fix in finding.fix
