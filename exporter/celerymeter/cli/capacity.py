"""``celerymeter capacity``: say how many slots a queue needed."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

import click

from celerymeter.cli.command import settings_command
from celerymeter.cli.prometheus_source import PrometheusSource
from celerymeter.errors import ReportRefused
from celerymeter.escaping import json_source, terminal_lines
from celerymeter.kinds import TEXT, Kind, duration
from celerymeter.options import group, option, setting


def _percentage(value: object) -> float:
    """Return a percentage. 0.95 is refused: it means 95%, as the threshold wait_objective is a share."""
    percentage = float(str(value).removesuffix("%"))
    if not 1 < percentage <= 100:
        raise ValueError(value)
    return percentage


PERCENT = Kind("percent", "a percentage such as 95 (above 1, at most 100)", _percentage)


@dataclass(frozen=True, slots=True)
class CapacitySettings:
    """Settings of `capacity`; ``wait_target`` is in seconds."""

    source: PrometheusSource = field(metadata=group(PrometheusSource))
    queue: str = field(metadata=option(TEXT, "The queue."))
    wait_target: float | None = setting(
        None,
        duration(minimum=0.001),
        "Time within which tasks should start. By default the threshold wait_target of the queue.",
    )
    objective: float | None = setting(
        None,
        PERCENT,
        "Percentage of tasks that should start within it. By default the threshold wait_objective, or 95.",
    )
    start: str = setting(
        "-7d", TEXT, "Start of the window: -24h, -7d, or ISO 8601 such as 2026-01-31T12:00:00Z.", flag="--from"
    )
    end: str = setting("now", TEXT, "End of the window: now, -1h, or ISO 8601.", flag="--to")
    format: str = setting("text", click.Choice(["text", "json"]), "Format of the answer.")
    lang: str = setting("en", click.Choice(["en", "zh-TW"]), "Language of the answer.")


@settings_command("capacity", CapacitySettings)
def command(settings: CapacitySettings) -> int:
    """Say how many slots a queue needed to keep its wait target.

    It replays the arrivals and run times of the window with different numbers of slots, first come, first served. If
    the number cannot be known, it prints why and exits with status 1.
    """
    import msgspec

    from celerymeter.reports.capacity import CapacityPlanner
    from celerymeter.reports.capacity_text import as_text, in_language
    from celerymeter.reports.request import read_window

    window = read_window(settings.start, settings.end, now=time.time(), names=("--from", "--to"))
    with settings.source.client() as client:
        planner = CapacityPlanner(client, settings.source.scope, window)
        target = settings.wait_target or planner.target(settings.queue)
        if target is None:
            raise ReportRefused(
                "no_wait_target",
                f"the queue {settings.queue} has no wait target: give --wait-target, or set the threshold wait_target",
            )
        share = planner.objective(settings.queue) if settings.objective is None else settings.objective / 100
        found = in_language(planner.capacity(settings.queue, target=target, objective=share), settings.lang)
    as_json = settings.format == "json"
    text = json_source(msgspec.json.encode(found).decode()) if as_json else as_text(found, settings.lang)
    sys.stdout.write(terminal_lines(text.rstrip("\n") + "\n"))
    return 1 if found.slots is None else 0
