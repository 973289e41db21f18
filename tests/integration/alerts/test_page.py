"""The page of the alerts says how soon each is sent."""

from __future__ import annotations

import re

import pytest
from tests.integration.alerts.faults import SCRIPTS
from tests.integration.alerts.timing import Expected
from tests.rules.bundle import ALERTS

TIME = r"(\d+ m )?\d+ s"


@pytest.mark.parametrize("expected", [one for all_of_it in SCRIPTS.values() for one in all_of_it], ids=str)
def test_each_fault_has_its_times(expected: Expected) -> None:
    """From the cause to the message, and from the repair to the message that it is over."""
    row = re.escape(f"| {expected.fault} | {expected.alert} ({expected.severity}) |")
    assert re.search(rf"^{row} {TIME} \| {TIME} \|$", (ALERTS / "README.md").read_text(), re.MULTILINE)
