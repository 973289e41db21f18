"""Would somebody be told: are the rules loaded, do they work, and does Prometheus have somebody to tell."""

from __future__ import annotations

from collections.abc import Iterator

from celerymeter.doctor.evidence import Evidence, RulesEvidence
from celerymeter.doctor.finding import Finding, fault, hint, listed

RECORDED, ALERT = "celery:queue_length:max", "CeleryNoWorkers"
"""One recorded series and one alert of the shipped rules, by which they are known."""


def not_loaded(evidence: Evidence) -> Iterator[Finding]:
    """None of the shipped rules, or some of their files only."""
    rules = _rules(evidence)
    if rules is None:
        return
    missing = {name for name in (RECORDED, ALERT) if name not in rules.loaded}
    if missing:
        yield hint(
            "rules-not-loaded",
            f"Prometheus has not loaded the shipped rules ({listed(missing)}): no alerts, and no limits on dashboards",
            "celerymeter bundle export monitoring; add monitoring/alerts/rules/*.yml to rule_files, and reload it",
        )
    elif not rules.limits:
        yield fault(
            "limits-not-loaded",
            "the rules are loaded, but no limits: every alert that compares with one is silent",
            "add rules/thresholds.yml to rule_files (it takes one evaluation until they are there)",
        )


def failing(evidence: Evidence) -> Iterator[Finding]:
    """Rules that cannot be evaluated."""
    rules = _rules(evidence)
    if rules and rules.failing:
        name, error = min(rules.failing.items())
        yield fault(
            "rules-failing",
            f"Prometheus cannot evaluate {listed(rules.failing)}: {error}",
            f"see its page /rules; begin with {name} (two targets under one name give duplicates)",
        )


def nobody_to_tell(evidence: Evidence) -> Iterator[Finding]:
    """Rules, and no Alertmanager."""
    rules, prometheus = _rules(evidence), evidence.prometheus
    if rules and ALERT in rules.loaded and prometheus and prometheus.alertmanagers == ():
        yield fault(
            "no-alertmanager",
            "Prometheus has the rules, but no Alertmanager: alerts fire and nobody hears of it",
            "name it under alerting.alertmanagers in prometheus.yml (found some seconds after a start)",
        )


def unreachable(evidence: Evidence) -> Iterator[Finding]:
    """An Alertmanager that does not answer; a hint only, where Prometheus itself has delivered everything."""
    for one in (evidence.prometheus and evidence.prometheus.alertmanagers) or ():
        if one.failure or one.errors:
            lost = f"{one.errors} notifications of Prometheus were lost; " if one.errors else ""
            reached = f"from here: {one.failure.text}" if one.failure else "it answers now"
            yield (fault if one.errors and one.failure else hint)(
                "alertmanager-unreachable",
                f"Alertmanager {one.url}: {lost}{reached}",
                "start it, and compare host and port with alerting.alertmanagers in prometheus.yml",
            )


def _rules(evidence: Evidence) -> RulesEvidence | None:
    return evidence.prometheus.rules if evidence.prometheus else None
