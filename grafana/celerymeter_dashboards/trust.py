"""Can what the dashboards show be trusted? One verdict, and the parts that it is made of."""

from __future__ import annotations

from celerymeter_dashboards import alarms, states
from celerymeter_dashboards.figures import verdict
from celerymeter_dashboards.links import EXPORTER, between
from celerymeter_dashboards.panels import About, Panel
from celerymeter_dashboards.panels import figure as panel
from celerymeter_dashboards.promql import Scope
from celerymeter_dashboards.states import State

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


def figure(scope: Scope, here: str) -> Panel:
    """The verdict: the gravest of the findings."""
    about = About(
        "Can I trust this page?",
        "Yes when an exporter answers, it is subscribed to events and receives them, its polls succeed, the rules and "
        "their limits are loaded, and no event was lost in the last 5 minutes. Else the gravest reason why not. "
        "Without rules or limits nothing here turns orange or red by itself: load alerts/rules/*.yml into Prometheus.",
        "none",
        "Nothing is scraped: see whether Prometheus has a target for the exporter.",
    )
    expr = verdict(
        alarms.exporter_down(scope),
        alarms.rules_missing(scope),
        alarms.limits_missing(scope),
        alarms.broker_down(scope),
        alarms.events_stopped(scope),
        alarms.polls_failing(scope),
        alarms.events_missed(scope),
        alarms.silent_workers(scope),
        alarms.broker_up(scope),
    )
    return panel(about, expr, links=[between(here, EXPORTER)], words=WORDS)
