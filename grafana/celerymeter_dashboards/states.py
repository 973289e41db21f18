"""States as numbers, with their texts and colours in all panels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grafana_foundation_sdk.models import dashboard as model

GOOD, WARNING, BAD, CALM, QUIET, GREY, UNSEEN = "green", "orange", "red", "blue", "text", "#8e8e8e", "purple"


@dataclass(frozen=True, slots=True)
class State:
    """The text and the colour of one value."""

    text: str
    color: str


NOT_KNOWN, NOTHING, NEVER = -1, -2, -3
"""Sentinels below every real value, so that a missing value is shown as such instead of an empty panel."""
STAT_COLORS = {"critical": BAD, "warning": WARNING, "good": GOOD}
"""By the label ``state`` of a stat panel; other states are `CALM`."""

CRITICAL_LEVEL, WARNING_LEVEL, GOOD_LEVEL, IDLE_LEVEL = 0, 1, 2, 3
LEVELS = {
    NOT_KNOWN: State("unknown", UNSEEN),
    IDLE_LEVEL: State("idle", GREY),
    GOOD_LEVEL: State("good", GOOD),
    WARNING_LEVEL: State("warning", WARNING),
    CRITICAL_LEVEL: State("critical", BAD),
}
EVENTS = {0: State("none", WARNING), 1: State("sent", GOOD), 2: State("totals", GOOD)}
WORKERS = {0: State("down", BAD), 1: State("left", GREY), 2: State("up", GOOD)}


def absent(nothing: str) -> dict[int, State]:
    """Return the texts for a missing value: unknown, ``nothing`` to count, or a time that will never come."""
    return {NOT_KNOWN: State("unknown", BAD), NOTHING: State(nothing, QUIET), NEVER: State("never", BAD)}


def mapping(states: Mapping[int, State] | Mapping[str, State]) -> list[model.ValueMapping]:
    """Return value mappings for exact numbers, or for exact texts."""
    options = {
        str(value): model.ValueMappingResult(text=state.text, color=state.color, index=index)
        for index, (value, state) in enumerate(states.items())
    }
    return [model.ValueMap(options=options)]
