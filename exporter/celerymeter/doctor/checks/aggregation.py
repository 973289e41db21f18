"""Workers that count their tasks themselves (`celerymeter.aggregate`), and exporters without a broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from celerymeter.doctor.evidence import Evidence, ExporterEvidence, TotalsSeen
from celerymeter.doctor.report import Finding, fault, hint, listed

_FAMILIES = {"runtime": "celery_task_runtime_seconds_bucket", "wait": "celery_task_wait_seconds_bucket"}


def failed(evidence: Evidence) -> Iterator[Finding]:
    """A worker gave up counting because of an error of ours."""
    if broken := {name for name, totals in evidence.broker.aggregating.items() if totals.failed}:
        yield fault(
            "aggregation-failed",
            f"{listed(broken)} stopped counting after an error, and sends task events instead",
            "look for 'celerymeter: counting failed' in its log and report it; a restart counts again",
        )


def bounds_differ(evidence: Evidence) -> Iterator[Finding]:
    """Workers put run times or waits into other buckets than the exporter, or than each other."""
    aggregating = evidence.broker.aggregating
    for histogram, family in _FAMILIES.items():
        bounds = {name: _bounds(totals, histogram) for name, totals in aggregating.items()}
        ours = _of_page(evidence.exporter, family) or (bounds[min(bounds)] if bounds else ())
        if other := {name for name, theirs in bounds.items() if theirs != ours}:
            yield hint(
                "bounds-differ",
                f"{listed(other)} has other {histogram} buckets than "
                f"{'the exporter' if _of_page(evidence.exporter, family) else 'other workers'}: what does not fit is "
                "counted in the next larger one",
                f"give the same {histogram}_buckets to celerymeter.aggregate.install and --{histogram}-buckets",
            )


def without_broker(evidence: Evidence) -> Iterator[Finding]:
    """Workers push their totals, and nobody can look into the queues."""
    if evidence.broker.absent:
        yield hint(
            "queues-unknown",
            "without a connection to the broker nothing is known of queues, and workers cannot be asked",
            "take the length of queues from the broker's own metrics",
        )


def _bounds(totals: TotalsSeen, histogram: str) -> tuple[float, ...]:
    return totals.runtime_bounds if histogram == "runtime" else totals.wait_bounds


def _of_page(exporter: ExporterEvidence | None, family: str) -> tuple[float, ...]:
    """The bounds on the exporter's page, without +Inf; none while it has no such histogram."""
    page: Mapping[str, object] = exporter.page if exporter is not None else {}
    if exporter is None or family not in page:
        return ()
    found = {float(sample.labels["le"]) for sample in exporter.page[family] if "le" in sample.labels}
    return tuple(sorted(found - {float("inf")}))
