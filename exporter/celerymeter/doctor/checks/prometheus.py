"""Checks of Prometheus: does it get every exporter's page, complete, often enough and with the right labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from urllib.parse import urlsplit

from celerymeter.doctor.evidence import Evidence, PrometheusEvidence, ScrapedExporter, ScrapeTarget
from celerymeter.doctor.report import Finding, fault, hint, listed
from celerymeter.metrics import CATALOGUE

DEFAULT_PORT = 9808
RARE = 60.0
"""Seconds between two scrapes up to which rules, dashboards and reports are right."""
SLOW = 0.5
"""Share of the timeout above which a scrape is slow."""
YOUNG = 180.0
"""Seconds after its start in which an exporter need not have been scraped."""
SKEW = 5.0
BEHIND = 60.0
"""Seconds by which the last event of one exporter of a cluster may be older than that of another."""
_HISTOGRAMS = {family.name for family in CATALOGUE if family.kind == "histogram"}
_FIXES = {
    "connection refused": "nothing listens there as seen from Prometheus: compare host and port with --listen, "
    "which must not be loopback when Prometheus is elsewhere",
    "no such host": "Prometheus cannot resolve the name: use one that resolves in its network",
    "deadline exceeded": "no answer in time: check firewalls and network policies, and raise scrape_timeout",
    "401": "set basic_auth or authorization in the scrape configuration, as in the web config file",
    "HTTP response to HTTPS client": "the exporter has no TLS there: set scheme: http",
    "server returned HTTP status 400": "the exporter has TLS: set scheme: https and tls_config",
    "x509": "set tls_config with the authority of the exporter's certificate",
    "404": "set metrics_path: /metrics",
    "limit exceeded": "raise sample_limit or label limits of the job, or let the exporter keep fewer series (--max-…)",
}
"""By a part of Prometheus' error."""


def unreachable(evidence: Evidence) -> Iterator[Finding]:
    """Prometheus does not answer a query."""
    prometheus = evidence.prometheus
    if prometheus and prometheus.failure:
        yield fault(
            "prometheus-unreachable",
            f"no answer from Prometheus {prometheus.url}: {prometheus.failure.text}",
            prometheus.failure.fix or "check the URL (with its path prefix, if it has one) and that Prometheus runs",
        )


def not_scraped(evidence: Evidence) -> Iterator[Finding]:
    """Prometheus has no exporter, or others but not the one that was named."""
    prometheus = evidence.prometheus
    if prometheus is None or prometheus.failure or _wrong_targets(prometheus):
        return
    if prometheus.exporters and not _lacks_ours(evidence):
        return
    likely = _likely_targets(evidence)
    if pending := [target for target in likely if not target.scraped]:
        yield fault(
            "exporter-not-scraped",
            f"Prometheus {prometheus.url} has not scraped {listed(target.url for target in pending)} yet",
            f"run the doctor again in {pending[0].interval:.0f} s",
        )
        return
    if failing := [target for target in likely if not target.healthy]:
        error = failing[0].error
        fix = next((fix for part, fix in _FIXES.items() if part in error), "see Prometheus' page /targets")
        yield fault(
            "scrape-failing", f"Prometheus cannot scrape {listed(target.url for target in failing)}: {error}", fix
        )
        return
    others = f", but those of {listed(map(str, prometheus.exporters))}" if prometheus.exporters else ""
    job = f"{{job_name: celerymeter, static_configs: [{{targets: ['HOST:{_port(evidence)}']}}]}}"
    yield fault(
        "exporter-not-scraped",
        f"Prometheus {prometheus.url} has no metrics of {'this' if others else 'an'} exporter{others}",
        f"add {job} to its scrape_configs, and reload it",
    )


def wrong_target(evidence: Evidence) -> Iterator[Finding]:
    """A target answers, but is not an exporter."""
    prometheus = evidence.prometheus
    if prometheus and (wrong := _wrong_targets(prometheus)):
        yield fault(
            "scrape-wrong-target",
            f"Prometheus scrapes {listed(wrong)}, which is not a celerymeter exporter",
            "compare the port with the exporter's --listen (9808 by default; 9809 has the control API's own metrics)",
        )


def incomplete(evidence: Evidence) -> Iterator[Finding]:
    """Families of the page are not in Prometheus, so dashboards and alerts that use them stay empty."""
    scraped, exporter = _ours(evidence), evidence.exporter
    if scraped is None or exporter is None or _is_young(evidence):
        return
    served = {name for name in exporter.page if name.startswith("celery")}
    served |= {f"{name}_bucket" for name in _HISTOGRAMS if f"{name}_count" in served}
    if missing := served - scraped.names:
        yield fault(
            "metrics-dropped",
            f"the exporter serves {listed(missing)}, which Prometheus does not have",
            "look for drop and keep in metric_relabel_configs of the job: dashboards and rules need all metrics",
        )


def seconds_to_next_scrape(evidence: Evidence) -> float:
    """Return how long to wait where something is missing in Prometheus that its next scrape may bring, or 0."""
    incomplete_page = any(incomplete(evidence))
    if not incomplete_page and not any(not_scraped(evidence)):
        return 0.0
    targets = [target for target in _likely_targets(evidence) if incomplete_page or not target.scraped]
    unknown = RARE if incomplete_page else 0.0
    return min(RARE, max((target.interval + target.timeout for target in targets), default=unknown))


def labels_changed(evidence: Evidence) -> Iterator[Finding]:
    """The scrape configuration removes or renames labels."""
    prometheus = evidence.prometheus
    if prometheus and prometheus.renamed:
        yield fault(
            "labels-renamed",
            f"the labels {listed(prometheus.renamed)} of the exporter arrive in Prometheus as exported_…",
            "the scrape configuration sets labels of these names: rename those, or set honor_labels: true",
        )
    if prometheus and prometheus.unlabelled:
        yield fault(
            "labels-dropped",
            f"series of the exporter lack the labels {listed(prometheus.unlabelled)}",
            "look for labeldrop, labelkeep and replacements in metric_relabel_configs of the job",
        )


def rarely_or_slowly(evidence: Evidence) -> Iterator[Finding]:
    """Prometheus scrapes too rarely, or a scrape takes almost too long."""
    prometheus = evidence.prometheus
    ours = {(one.job, one.instance) for one in prometheus.exporters} if prometheus else set()
    targets: list[ScrapeTarget] = [
        target
        for target in (prometheus.targets if prometheus else None) or ()
        if target.healthy and (target.job, target.instance) in ours
    ]
    if rare := [target for target in targets if target.interval > RARE]:
        yield hint(
            "scrape-rare",
            f"Prometheus scrapes {listed(target.url for target in rare)} every {rare[0].interval:.0f} s",
            "set scrape_interval to 10s (at most 60s): alerts use windows of 5 minutes",
        )
    if slow := [target for target in targets if target.timeout and target.took > SLOW * target.timeout]:
        yield hint(
            "scrape-slow",
            f"a scrape of {slow[0].url} takes {slow[0].took:.1f} s, with a timeout of {slow[0].timeout:.0f} s",
            "raise scrape_timeout, or let the exporter keep fewer series (--max-task-pairs, fewer histogram buckets)",
        )


def clocks(evidence: Evidence) -> Iterator[Finding]:
    """The clocks of exporter and Prometheus, from which ages are computed, differ from ours."""
    offsets = {
        "the exporter": evidence.exporter.clock_offset if evidence.exporter else None,
        "Prometheus": evidence.prometheus.clock_offset if evidence.prometheus else None,
    }
    if skewed := {name: offset for name, offset in offsets.items() if offset is not None and abs(offset) > SKEW}:
        shown = listed(f"{name} {-offset:+.0f} s" for name, offset in skewed.items())
        yield hint(
            "server-clock-skew",
            f"clocks differ from this machine's: {shown}",
            "synchronise them (NTP, chrony): the age of a queue or task is Prometheus' time minus the exporter's",
        )


def scraped_twice(evidence: Evidence) -> Iterator[Finding]:
    """One exporter process is scraped under two targets."""
    by_start: dict[float, list[ScrapedExporter]] = defaultdict(list)
    for one in _exporters(evidence):
        if one.started is not None:
            by_start[one.started].append(one)
    for same in by_start.values():
        if len(same) > 1:
            yield fault(
                "exporter-scraped-twice",
                f"one exporter is scraped as {listed(map(str, same))}, so sums count every task twice",
                "keep it in one job (annotations and a ServiceMonitor may both select it)",
            )


def clusters_mixed(evidence: Evidence) -> Iterator[Finding]:
    """Exporters of different brokers have the same cluster label."""
    for one, other in combinations(_exporters(evidence), 2):
        disjoint = one.workers and other.workers and not one.workers & other.workers
        if one.cluster == other.cluster and one.started != other.started and disjoint:
            yield fault(
                "clusters-mixed",
                f"{one} and {other} have no worker in common, and both are cluster {one.cluster!r}",
                "give the targets of each broker a label `cluster` of its own, because rules group by it",
            )
            return


def one_behind(evidence: Evidence) -> Iterator[Finding]:
    """One of several exporters of a cluster no longer receives events."""
    by_cluster: dict[str, list[ScrapedExporter]] = defaultdict(list)
    for one in _exporters(evidence):
        by_cluster[one.cluster].append(one)
    for together in by_cluster.values():
        newest = max((one.last_event or 0.0 for one in together if one.broker_up), default=0.0)
        behind = [one for one in together if not one.broker_up or newest - (one.last_event or 0.0) > BEHIND]
        if newest and behind:
            yield fault(
                "exporter-behind",
                f"{listed(map(str, behind))} receives no events, while another exporter of its cluster does",
                "read its /-/ready and its log; if it reads another broker, its target needs another label `cluster`",
            )


def other_exporter(evidence: Evidence) -> Iterator[Finding]:
    """Another program's series have the same names."""
    others = evidence.prometheus.others if evidence.prometheus else frozenset()
    if others:
        yield hint(
            "other-exporter",
            f"{listed(others)} also serves celery_… series, and is not a celerymeter exporter",
            "while both are scraped, give one of them a label `cluster` of its own, or sums count tasks twice",
        )


def _port(evidence: Evidence) -> int:
    return (urlsplit(evidence.exporter.url).port if evidence.exporter else None) or DEFAULT_PORT


def _likely_targets(evidence: Evidence) -> list[ScrapeTarget]:
    """Return the targets that may be the exporter, by port or job."""
    port = _port(evidence)
    targets = (evidence.prometheus.targets if evidence.prometheus else None) or ()
    return [target for target in targets if urlsplit(target.url).port == port or "celery" in target.job.lower()]


def _exporters(evidence: Evidence) -> tuple[ScrapedExporter, ...]:
    return evidence.prometheus.exporters if evidence.prometheus else ()


def _ours(evidence: Evidence) -> ScrapedExporter | None:
    """Return the exporter whose page was read, as Prometheus has it."""
    started = evidence.exporter.started if evidence.exporter else None
    return next((one for one in _exporters(evidence) if started is not None and one.started == started), None)


def _lacks_ours(evidence: Evidence) -> bool:
    """Return True when Prometheus has exporters, but certainly not the one whose page was read."""
    known = evidence.exporter is not None and evidence.exporter.started is not None
    return known and _ours(evidence) is None and not _is_young(evidence)


def _is_young(evidence: Evidence) -> bool:
    exporter = evidence.exporter
    return exporter is not None and exporter.started is not None and exporter.at - exporter.started < YOUNG


def _wrong_targets(prometheus: PrometheusEvidence) -> list[str]:
    """Return what jobs for Celery scrape while there is no exporter."""
    if prometheus.failure or prometheus.exporters:
        return []
    found = (target for target in prometheus.targets or () if target.healthy and "celery" in target.job.lower())
    return [target.url for target in found if target.instance not in prometheus.others]
