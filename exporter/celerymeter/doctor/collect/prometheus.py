"""Prometheus: which exporters it has, and which targets it tries."""

from __future__ import annotations

from typing import Any

from celerymeter.doctor.collect.failures import failure_of
from celerymeter.doctor.collect.http import get
from celerymeter.doctor.evidence import Failure, PrometheusEvidence, Target
from celerymeter.errors import PrometheusError
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope
from celerymeter.settings import without_password


def look(url: str, *, scope: Scope) -> PrometheusEvidence:
    """Ask for exporters within the scope, and for the targets."""
    shown = without_password(url)
    try:
        with PrometheusClient(PrometheusSettings(url)) as client:
            found = client.instant(scope.render("celerymeter_build_info{SEL}"))
    except PrometheusError as error:
        return PrometheusEvidence(shown, failure=Failure(failure_of(error).kind, str(error)))
    scraped = frozenset(sample.label("instance") for sample in found)
    return PrometheusEvidence(shown, scraped=scraped, targets=_targets(url))


def _targets(url: str) -> tuple[Target, ...] | None:
    """The active targets; engines other than Prometheus may have no such page."""
    answer = get(f"{url.rstrip('/')}/api/v1/targets?state=active")
    if isinstance(answer, Failure):
        return None
    try:
        told: list[dict[str, Any]] = answer.json()["data"]["activeTargets"]
        return tuple(
            Target(str(one["scrapeUrl"]), one["health"] == "up", str(one.get("lastError", ""))) for one in told
        )
    except (ValueError, LookupError, TypeError):
        return None
