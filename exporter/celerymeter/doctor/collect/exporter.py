"""The exporter's page."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import requests
from prometheus_client.parser import text_string_to_metric_families

from celerymeter.doctor.collect.http import get
from celerymeter.doctor.evidence import ExporterEvidence, Failure, Sample
from celerymeter.urls import without_password


def look(url: str) -> ExporterEvidence:
    """Fetch ``/metrics`` below the URL, with or without it in the URL."""
    base = url.rstrip("/").removesuffix("/metrics")
    shown = without_password(base)
    answer = get(f"{base}/metrics")
    if isinstance(answer, Failure):
        return ExporterEvidence(shown, failure=answer)
    try:
        page = parse(answer.text)
    except ValueError:
        page = {}
    if "celerymeter_build_info" not in page:
        return ExporterEvidence(shown, failure=Failure("other", "something answers, but it is no celerymeter exporter"))
    now = time.time()
    return ExporterEvidence(shown, page=page, clock_offset=_clock_offset(answer, now), at=now)


def _clock_offset(answer: requests.Response, now: float) -> float | None:
    """By the answer's date, which has whole seconds; a proxy's date would be its own."""
    try:
        return now - parsedate_to_datetime(answer.headers["Date"]).timestamp() - 0.5
    except (KeyError, ValueError):
        return None


def parse(text: str) -> dict[str, tuple[Sample, ...]]:
    """The samples of a page by name, buckets left out; raises `ValueError` for what is no exposition text."""
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                found.setdefault(sample.name, []).append(Sample(sample.labels, sample.value))
    return {name: tuple(samples) for name, samples in found.items()}
