"""Does the exporter's page arrive in Prometheus: all of it, often enough, under its own labels."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from celerymeter.doctor.evidence import Evidence, PrometheusEvidence, Scraped, Target
from celerymeter.doctor.finding import Finding, fault, hint, listed
from celerymeter.metrics import CATALOGUE

DEFAULT_PORT = 9808
RARE = 60.0
"""Seconds between two scrapes up to which rules, dashboards and reports are right."""
SLOW = 0.5
"""Share of the time-out that a scrape may take before it is called slow."""
YOUNG = 180.0
"""Seconds for which an exporter may not yet have been scraped."""
SKEW = 5.0
_HISTOGRAMS = {family.name for family in CATALOGUE if family.kind == "histogram"}
_MENDS = {
    "connection refused": "nothing listens there as seen from Prometheus: compare host and port with --listen, "
    "which must not be loopback when Prometheus is elsewhere",
    "no such host": "Prometheus cannot resolve the name: use the one that its own network knows",
    "deadline exceeded": "no answer in time: check firewalls and network policies, and raise scrape_timeout",
    "401": "set basic_auth or authorization in the scrape configuration, as the web config file wants it",
    "HTTP response to HTTPS client": "the exporter has no TLS there: set scheme: http",
    "server returned HTTP status 400": "the exporter has TLS: set scheme: https and tls_config",
    "x509": "set tls_config with the authority of the exporter's certificate",
    "404": "set metrics_path: /metrics",
    "limit exceeded": "raise sample_limit or label limits of the job, or leave the exporter fewer series (--max-…)",
}


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
    """It answers, and has no exporter of ours, or others but not the one that was named."""
    prometheus = evidence.prometheus
    if prometheus is None or prometheus.failure or (prometheus.exporters and not _passed_over(evidence)):
        return
    port = _port(evidence)
    if _wrong_targets(prometheus):
        return
    if failing := [target for target in _targets(prometheus, port) if not target.healthy]:
        error = failing[0].error
        mend = next((mend for sign, mend in _MENDS.items() if sign in error), "see Prometheus' page /targets")
        yield fault(
            "scrape-failing", f"Prometheus cannot scrape {listed(target.url for target in failing)}: {error}", mend
        )
        return
    others = f", but of {listed(map(str, prometheus.exporters))}" if prometheus.exporters else ""
    job = f"{{job_name: celerymeter, static_configs: [{{targets: ['HOST:{port}']}}]}}"
    yield fault(
        "exporter-not-scraped",
        f"Prometheus {prometheus.url} has no metrics of {'this' if others else 'an'} exporter{others}",
        f"add {job} to its scrape_configs, and reload it",
    )


def wrong_target(evidence: Evidence) -> Iterator[Finding]:
    """A target that answers, but is no exporter."""
    prometheus = evidence.prometheus
    if prometheus and (wrong := _wrong_targets(prometheus)):
        yield fault(
            "scrape-wrong-target",
            f"{listed(wrong)} can be scraped, but is no exporter of a Celery cluster",
            "compare the port with the exporter's --listen (9808 by default; 9809 is the control API's own metrics)",
        )


def incomplete(evidence: Evidence) -> Iterator[Finding]:
    """Families that are on the page and not in Prometheus: dashboards and alerts that read them stay empty."""
    scraped, page = _same(evidence), evidence.exporter
    if scraped is None or page is None or _young(evidence):
        return
    served = {name for name in page.page if name.startswith("celery")}
    served |= {f"{name}_bucket" for name in _HISTOGRAMS if f"{name}_count" in served}
    if missing := served - scraped.names:
        yield fault(
            "metrics-dropped",
            f"the exporter serves {listed(missing)}, and Prometheus does not have it",
            "look for drop and keep in metric_relabel_configs of the job: dashboards and rules need all",
        )


def labels_changed(evidence: Evidence) -> Iterator[Finding]:
    """Labels that the scrape configuration took away or renamed."""
    prometheus = evidence.prometheus
    if prometheus and prometheus.renamed:
        yield fault(
            "labels-renamed",
            f"labels {listed(prometheus.renamed)} of the exporter came into Prometheus with exported_ before them",
            "the scrape configuration sets labels of these names: rename those, or set honor_labels: true",
        )
    if prometheus and prometheus.unlabelled:
        yield fault(
            "labels-dropped",
            f"series of the exporter lack {listed(prometheus.unlabelled)}",
            "look for labeldrop, labelkeep and replacements in metric_relabel_configs of the job",
        )


def scraped_badly(evidence: Evidence) -> Iterator[Finding]:
    """Too rarely, or almost too slowly."""
    targets = [target for target in _ours(evidence) if target.healthy]
    if rare := [target for target in targets if target.interval > RARE]:
        yield hint(
            "scrape-rare",
            f"{listed(target.url for target in rare)} is scraped every {rare[0].interval:.0f} s",
            "set scrape_interval to 10s, at most 60s: alerts look at 5 minutes",
        )
    if slow := [target for target in targets if target.timeout and target.took > SLOW * target.timeout]:
        yield hint(
            "scrape-slow",
            f"a scrape of {slow[0].url} takes {slow[0].took:.1f} s of {slow[0].timeout:.0f} s",
            "raise scrape_timeout, or leave the exporter fewer series (--max-task-pairs, shorter lists of buckets)",
        )


def clocks(evidence: Evidence) -> Iterator[Finding]:
    """The clocks of the servers that ages are made of."""
    offsets = {
        "the exporter": evidence.exporter.clock_offset if evidence.exporter else None,
        "Prometheus": evidence.prometheus.clock_offset if evidence.prometheus else None,
    }
    skewed = {name: offset for name, offset in offsets.items() if offset is not None and abs(offset) > SKEW}
    if skewed:
        what = listed(f"{name} {-offset:+.0f} s" for name, offset in skewed.items())
        yield hint(
            "server-clock-skew",
            f"clocks differ from this machine's: {what}",
            "synchronise them (NTP, chrony): ages of queues and tasks are Prometheus' time less the exporter's",
        )


def _same(evidence: Evidence) -> Scraped | None:
    """The exporter whose page we have, as Prometheus has it."""
    started = evidence.exporter.started if evidence.exporter else None
    found = evidence.prometheus.exporters if evidence.prometheus else ()
    return next((one for one in found if started is not None and one.started == started), None)


def _passed_over(evidence: Evidence) -> bool:
    """Whether Prometheus has exporters, but surely not the one whose page we have."""
    known = evidence.exporter is not None and evidence.exporter.started is not None
    return known and _same(evidence) is None and not _young(evidence)


def _wrong_targets(prometheus: PrometheusEvidence) -> list[str]:
    """What a job for Celery scrapes, while no exporter is scraped."""
    if prometheus.failure or prometheus.exporters:
        return []
    found = (target for target in prometheus.targets or () if target.healthy and "celery" in target.job.lower())
    return [target.url for target in found if target.instance not in prometheus.others]


def _young(evidence: Evidence) -> bool:
    exporter = evidence.exporter
    return exporter is not None and exporter.started is not None and exporter.at - exporter.started < YOUNG


def _ours(evidence: Evidence) -> list[Target]:
    """The targets that are exporters of ours."""
    prometheus = evidence.prometheus
    places = {(one.job, one.instance) for one in prometheus.exporters} if prometheus else set()
    return [one for one in (prometheus.targets or () if prometheus else ()) if (one.job, one.instance) in places]


def _port(evidence: Evidence) -> int:
    port = urlsplit(evidence.exporter.url).port if evidence.exporter else None
    return port or DEFAULT_PORT


def _targets(prometheus: PrometheusEvidence, port: int) -> list[Target]:
    """Targets that look like the exporter: they have its port, or its name."""
    return [
        target
        for target in prometheus.targets or ()
        if urlsplit(target.url).port == port or "celery" in target.job.lower()
    ]
