"""Checks of alerting and of the control API: would a notification arrive, and is the API healthy."""

from __future__ import annotations

from collections.abc import Iterator

from celerymeter.doctor.evidence import Evidence, RulesEvidence
from celerymeter.doctor.report import Finding, fault, hint, listed

RECORDED, ALERT = "celery:queue_length:max", "CeleryNoWorkers"
"""One recorded series and one alert of the bundled rules, which show that the rules are loaded."""


def rules_not_loaded(evidence: Evidence) -> Iterator[Finding]:
    """Prometheus has none of the bundled rules, or only some of their files."""
    rules = _rules(evidence)
    if rules is None:
        return
    missing = {name for name in (RECORDED, ALERT) if name not in rules.loaded}
    if missing:
        yield hint(
            "rules-not-loaded",
            f"Prometheus has not loaded the bundled rules ({listed(missing)}): no alerts, no limits on dashboards",
            "run celerymeter bundle export monitoring, add monitoring/alerts/rules/*.yml to rule_files, reload it",
        )
    elif not rules.limits:
        yield fault(
            "limits-not-loaded",
            "the rules are loaded without their thresholds, so no alert with a threshold can fire",
            "add rules/thresholds.yml to rule_files; the thresholds appear after one evaluation",
        )


def rules_failing(evidence: Evidence) -> Iterator[Finding]:
    """Prometheus cannot evaluate some rules."""
    rules = _rules(evidence)
    if rules and rules.failing:
        name, error = min(rules.failing.items())
        yield fault(
            "rules-failing",
            f"Prometheus cannot evaluate {listed(rules.failing)}: {error}",
            f"open its page /rules and start with {name}; two targets with the same labels cause duplicate series",
        )


def no_alertmanager(evidence: Evidence) -> Iterator[Finding]:
    """There are rules, but no Alertmanager."""
    rules, prometheus = _rules(evidence), evidence.prometheus
    if rules and ALERT in rules.loaded and prometheus and prometheus.alertmanagers == ():
        yield fault(
            "no-alertmanager",
            "Prometheus has the rules but no Alertmanager, so alerts fire without a notification",
            "add one to alerting.alertmanagers in prometheus.yml; Prometheus needs some seconds to find it",
        )


def alertmanager_unreachable(evidence: Evidence) -> Iterator[Finding]:
    """An Alertmanager does not answer; only a hint if Prometheus itself could deliver everything."""
    for one in (evidence.prometheus and evidence.prometheus.alertmanagers) or ():
        if one.failure or one.errors:
            lost = f"Prometheus could not deliver {one.errors} notifications; " if one.errors else ""
            reached = f"from here: {one.failure.text}" if one.failure else "it answers now"
            yield (fault if one.errors and one.failure else hint)(
                "alertmanager-unreachable",
                f"Alertmanager {one.url}: {lost}{reached}",
                (one.failure and one.failure.fix)
                or "start it, and compare host and port with alerting.alertmanagers in prometheus.yml",
            )


def control_unreachable(evidence: Evidence) -> Iterator[Finding]:
    """The control API has no health page at this URL."""
    control = evidence.control
    if control and control.failure:
        yield fault(
            "control-unreachable",
            f"no answer from the control API {control.url}: {control.failure.text}",
            control.failure.fix
            or "start it (celerymeter control …), and compare host, port and --base-path with the URL",
        )


def control_unhealthy(evidence: Evidence) -> Iterator[Finding]:
    """The control API answers and is not healthy."""
    control = evidence.control
    if control and not control.failure and control.status != "healthy":
        yield (fault if control.status == "unhealthy" else hint)(
            "control-unhealthy",
            f"the control API is {control.status}: {listed(control.failing) or 'no reason given'}",
            "fix what it names; /system/status (role admin) has details",
        )


def _rules(evidence: Evidence) -> RulesEvidence | None:
    return evidence.prometheus.rules if evidence.prometheus else None
