"""States as numbers, and the words and colours that every panel gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grafana_foundation_sdk.models import dashboard as model

GOOD, WARNING, BAD, CALM, QUIET, GREY, UNSEEN = "green", "orange", "red", "blue", "text", "#8e8e8e", "purple"


@dataclass(frozen=True, slots=True)
class State:
    """What one value is called and how it is coloured."""

    text: str
    color: str


NOT_KNOWN, NOTHING, NEVER = -1, -2, -3
"""Sentinels below every real value: a figure that is gone is red and says so, instead of an empty panel."""
FIGURE_COLORS = {"critical": BAD, "warning": WARNING, "good": GOOD}
"""By the label ``state`` of a figure; any other has the calm colour."""

CRITICAL_LEVEL, WARNING_LEVEL, GOOD_LEVEL, IDLE_LEVEL = 0, 1, 2, 3
LEVELS = {
    NOT_KNOWN: State("unknown", UNSEEN),
    IDLE_LEVEL: State("idle", GREY),
    GOOD_LEVEL: State("good", GOOD),
    WARNING_LEVEL: State("warning", WARNING),
    CRITICAL_LEVEL: State("critical", BAD),
}
EVENTS = {0: State("none", WARNING), 1: State("sent", GOOD)}
WORKERS = {0: State("down", BAD), 1: State("left", GREY), 2: State("up", GOOD)}


def absent(nothing: str) -> dict[int, State]:
    """The words for a figure without a value: unknown, ``nothing`` to count, or a time that will not come."""
    return {NOT_KNOWN: State("unknown", BAD), NOTHING: State(nothing, QUIET), NEVER: State("never", BAD)}


def mapping(states: Mapping[int, State] | Mapping[str, State]) -> list[model.ValueMapping]:
    """Value mappings for exact numbers, or for exact texts."""
    options = {
        str(value): model.ValueMappingResult(text=state.text, color=state.color, index=index)
        for index, (value, state) in enumerate(states.items())
    }
    return [model.ValueMap(options=options)]
