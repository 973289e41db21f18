"""Does the exporter's page arrive in Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from celerymeter.doctor.evidence import Evidence, PrometheusEvidence, Target
from celerymeter.doctor.finding import Finding, fault, listed

DEFAULT_PORT = 9808


def unreachable(evidence: Evidence) -> Iterator[Finding]:
    """No answer to a query."""
    prometheus = evidence.prometheus
    if prometheus and prometheus.failure:
        yield fault(
            "prometheus-unreachable",
            f"no answer from Prometheus {prometheus.url}: {prometheus.failure.text}",
            "check the URL (with its path prefix, if it has one) and that Prometheus is up",
        )


def not_scraped(evidence: Evidence) -> Iterator[Finding]:
    """It answers, and has no exporter of ours."""
    prometheus = evidence.prometheus
    if prometheus is None or prometheus.failure or prometheus.scraped:
        return
    port = _port(evidence)
    if failing := [target for target in _targets(prometheus, port) if not target.healthy]:
        yield fault(
            "scrape-failing",
            f"Prometheus cannot scrape {listed(target.url for target in failing)}: {failing[0].error}",
            "see Prometheus' page /targets; check that its host reaches the exporter, TLS and password",
        )
        return
    job = f"{{job_name: celerymeter, static_configs: [{{targets: ['HOST:{port}']}}]}}"
    yield fault(
        "exporter-not-scraped",
        f"Prometheus {prometheus.url} has no metrics of an exporter",
        f"add {job} to its scrape_configs, and reload it",
    )


def _port(evidence: Evidence) -> int:
    port = urlsplit(evidence.exporter.url).port if evidence.exporter else None
    return port or DEFAULT_PORT


def _targets(prometheus: PrometheusEvidence, port: int) -> list[Target]:
    """Targets that look like the exporter: they have its port."""
    return [target for target in prometheus.targets or () if urlsplit(target.url).port == port]
