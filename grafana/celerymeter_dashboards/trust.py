"""The panel "Can I trust this page?": one verdict, made of several checks."""

from __future__ import annotations

from celerymeter_dashboards import conditions, states
from celerymeter_dashboards.links import EXPORTER, between
from celerymeter_dashboards.panels import About, Panel, stat_panel
from celerymeter_dashboards.promql import VariableScope
from celerymeter_dashboards.states import State
from celerymeter_dashboards.stats import verdict

WORDS = {
    0: State("no: exporter down", states.BAD),
    1: State("no: rules not loaded", states.BAD),
    2: State("no: limits not loaded", states.BAD),
    3: State("no: broker down", states.BAD),
    4: State("no: events stopped", states.BAD),
    5: State("partly: a poll fails", states.WARNING),
    6: State("partly: events missed", states.WARNING),
    7: State("partly: silent worker", states.WARNING),
    8: State("yes", states.GOOD),
    states.NOT_KNOWN: State("no: nothing scraped", states.BAD),
}


def panel(scope: VariableScope, here: str) -> Panel:
    """Return the panel, which shows the most severe problem."""
    about = About(
        "Can I trust this page?",
        "Yes if an exporter answers, is subscribed to events and receives them, its polls succeed, the rules and "
        "thresholds are loaded, and no event was lost in the last 5 minutes. Otherwise the most serious reason is "
        "shown. Without rules and thresholds nothing turns orange or red: load alerts/rules/*.yml into Prometheus.",
        "none",
        "Nothing is scraped: see whether Prometheus has a target for the exporter.",
    )
    expr = verdict(
        conditions.exporter_down(scope),
        conditions.rules_missing(scope),
        conditions.limits_missing(scope),
        conditions.broker_down(scope),
        conditions.events_stopped(scope),
        conditions.polls_failing(scope),
        conditions.events_missed(scope),
        conditions.silent_workers(scope),
        conditions.broker_up(scope),
    )
    return stat_panel(about, expr, links=[between(here, EXPORTER)], words=WORDS)
