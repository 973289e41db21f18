"""A shop over some hours: nothing fires while nothing is wrong, and each incident brings its alerts and no other.

The whole week of a large shop takes too long for a test: `python -m tools.production_week` runs it.
"""

from __future__ import annotations

import pytest
from tools.production_week.__main__ import healthy, with_incident
from tools.production_week.incidents import INCIDENTS
from tools.production_week.promtool import objections, written
from tools.production_week.shop import Shop

SHOP = Shop(queues=5, tasks=20, workers=8, from_hour=10, hours=3)
"""Three hours with a deploy, bursts, a restart of the exporter, and workers that come and go."""


def test_nothing_fires_while_nothing_is_wrong() -> None:
    """Info apart."""
    assert objections([healthy(SHOP)]) == ""


@pytest.mark.slow
def test_each_incident_brings_its_alerts_and_no_other() -> None:
    """Each in a shop of its own."""
    assert objections([with_incident(SHOP, incident) for incident in INCIDENTS]) == ""


def test_an_alert_that_must_not_fire_is_named() -> None:
    """With its subject: the check can fail."""
    [poison] = [incident for incident in INCIDENTS if incident.name == "a poison message"]
    world = with_incident(Shop(queues=3, tasks=4, workers=2, from_hour=11, hours=2), poison)
    world = type(world)(world.cluster, world.series, {})
    assert 'alertname="CeleryPoolProcessLost", name="shop.every_ten_minutes"' in objections([world])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0, 2, 4, 6], "0+2x3"),
        ([1, 1, 1, 5], "1+0x2 5"),
        ([None, None, 3, None, None, None, 4], "_x2 3 stale _x2 4"),
        ([7], "7"),
    ],
)
def test_values_are_written_as_promtool_reads_them(values: list[float | None], text: str) -> None:
    """Runs of equal steps are one word; a series that goes is stale."""
    assert written(values) == text
