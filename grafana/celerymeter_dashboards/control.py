"""The control API's panels on the Exporter dashboard."""

from __future__ import annotations

from celerymeter import metrics as families
from celerymeter_dashboards.panels import About, Line, Panel, Scale, chart
from celerymeter_dashboards.promql import Scope, quantile, rate


def requests(scope: Scope) -> Panel:
    """Requests by outcome."""
    about = About(
        "Requests",
        "Requests answered per second, by status. Refused: without a valid token.",
        "reqps",
        "The control API is not scraped, or it received no request.",
    )
    return chart(
        about,
        Line(f"sum by (code) ({rate(scope.of(families.CONTROL_REQUESTS), 'code')})", "{{code}}"),
        Line(f"sum({rate(scope.of(families.CONTROL_AUTH_FAILURES))})", "refused", "red"),
        top=1.0,
    )


def answer_times(scope: Scope) -> Panel:
    """Response times."""
    about = About(
        "Time to answer (p95)",
        "Time that the control API takes to answer requests, and Prometheus to answer the API's queries. Logarithmic "
        "scale.",
        "s",
        "The control API is not scraped, or it received no request.",
    )
    return chart(
        about,
        Line(quantile(0.95, scope.of(families.CONTROL_LATENCY, part="_bucket")), "requests", "blue"),
        Line(quantile(0.95, scope.of(families.CONTROL_PROMQL_LATENCY, part="_bucket")), "Prometheus", "orange"),
        scale=Scale.LOGARITHMIC,
    )
