"""The control API's panels on the Exporter dashboard."""

from __future__ import annotations

from celerymeter import metrics as families
from celerymeter_dashboards.panels import About, ChartQuery, Panel, Scale, chart
from celerymeter_dashboards.promql import VariableScope, quantile, rate


def requests(scope: VariableScope) -> Panel:
    """Requests by outcome."""
    about = About(
        "Requests",
        "Requests answered per second, by status. Refused: without a valid token.",
        "suffix:/s",
        "The control API is not scraped, or it received no request.",
    )
    return chart(
        about,
        ChartQuery(f"sum by (code) ({rate(scope.of(families.CONTROL_REQUESTS), 'code')})", "{{code}}"),
        ChartQuery(f"sum({rate(scope.of(families.CONTROL_AUTH_FAILURES))})", "refused", "red"),
        top=1.0,
    )


def answer_times(scope: VariableScope) -> Panel:
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
        ChartQuery(quantile(0.95, scope.of(families.CONTROL_LATENCY, part="_bucket")), "requests", "blue"),
        ChartQuery(quantile(0.95, scope.of(families.CONTROL_PROMQL_LATENCY, part="_bucket")), "Prometheus", "orange"),
        scale=Scale.LOGARITHMIC,
    )
