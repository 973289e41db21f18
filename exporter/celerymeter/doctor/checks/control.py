"""Is the control API well."""

from __future__ import annotations

from collections.abc import Iterator

from celerymeter.doctor.evidence import Evidence
from celerymeter.doctor.finding import Finding, fault, hint, listed


def unreachable(evidence: Evidence) -> Iterator[Finding]:
    """No health page."""
    control = evidence.control
    if control and control.failure:
        yield fault(
            "control-unreachable",
            f"no answer from the control API {control.url}: {control.failure.text}",
            "start it (celerymeter control …), and compare host, port and --base-path with the URL",
        )


def unhealthy(evidence: Evidence) -> Iterator[Finding]:
    """It answers, and says what it lacks."""
    control = evidence.control
    if control and not control.failure and control.status != "healthy":
        yield (fault if control.status == "unhealthy" else hint)(
            "control-unhealthy",
            f"the control API says {control.status}: {listed(control.failing) or 'no reason given'}",
            "mend what it names; /system/status (role admin) says more",
        )
