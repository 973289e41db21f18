"""The command ``celerymeter capacity``: asks for one queue, and prints the answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import click
import msgspec

from celerymeter.errors import ReportRefused
from celerymeter.escaping import json_source, terminal, terminal_lines
from celerymeter.kinds import HEADER, HTTP_URL, TEXT, Kind, duration
from celerymeter.options import option, setting
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope
from celerymeter.reports.capacity import Capacity, CapacityPlanner
from celerymeter.reports.formatting import decimal, percent, seconds, timestamp, translate
from celerymeter.reports.report import Note
from celerymeter.reports.request import read_window
from celerymeter.reports.texts import CAPACITY, NOTES

QUERY_TIMEOUT = 60.0


def _share(value: object) -> float:
    """Return a percentage between 0 and 100, without the ends."""
    share = float(str(value).removesuffix("%"))
    if not 0 < share <= 100:
        raise ValueError(value)
    return share


PERCENT = Kind("percent", "a percentage above 0, at most 100", _share)


@dataclass(frozen=True, slots=True)
class CapacitySettings:
    """The settings of the command."""

    prometheus_url: str = field(
        repr=False,
        metadata=option(HTTP_URL, "Prometheus, or a server with the same API (VictoriaMetrics, Thanos, Mimir)."),
    )
    queue: str = field(metadata=option(TEXT, "The queue."))
    prometheus_headers: Mapping[str, str] = setting(
        {},
        HEADER,
        "HTTP header to send to Prometheus, such as a tenant or a token; may be repeated.",
        flag="--prometheus-header",
        repeated=True,
    )
    wait_target: float | None = setting(
        None,
        duration(minimum=0.001),
        "Time within which tasks should start. By default the queue's threshold wait_target.",
    )
    objective: float | None = setting(
        None, PERCENT, "Percentage of tasks that should. By default the threshold wait_objective, or 95."
    )
    start: str = setting(
        "-7d", TEXT, "Start of the window: -24h, -7d, or ISO 8601 such as 2026-01-31T12:00:00Z.", flag="--from"
    )
    end: str = setting("now", TEXT, "End of the window: now, -1h, or ISO 8601.", flag="--to")
    cluster: str | None = setting(
        None, TEXT, "The cluster to report on, if Prometheus has metrics of several (the label cluster)."
    )
    selector: str = setting("", TEXT, "Label matchers to add to every query, such as 'env=\"prod\"'.")
    format: str = setting("text", click.Choice(["text", "json"]), "Format of the answer.")
    lang: str = setting("en", click.Choice(["en", "zh-TW"]), "Language of the answer.")


def run(settings: CapacitySettings) -> int:
    """Print the answer; the exit status is 1 when it cannot be known."""
    window = read_window(settings.start, settings.end, now=time.time(), names=("--from", "--to"))
    prometheus = PrometheusSettings(settings.prometheus_url, headers=settings.prometheus_headers, timeout=QUERY_TIMEOUT)
    with PrometheusClient(prometheus) as client:
        planner = CapacityPlanner(client, Scope(settings.cluster, settings.selector), window)
        target = settings.wait_target or planner.target(settings.queue)
        if target is None:
            raise ReportRefused(
                "no_wait_target",
                f"the queue {settings.queue} has no wait target: give --wait-target, or set the threshold wait_target",
            )
        share = planner.objective(settings.queue) if settings.objective is None else settings.objective / 100
        found = in_language(planner.capacity(settings.queue, target=target, objective=share), settings.lang)
    text = (
        json_source(msgspec.json.encode(found).decode()) if settings.format == "json" else as_text(found, settings.lang)
    )
    sys.stdout.write(terminal_lines(text.rstrip("\n") + "\n"))
    return 1 if found.slots is None else 0


def in_language(found: Capacity, language: str) -> Capacity:
    """Return the answer with its sentences in ``en`` or ``zh-TW``."""

    def said(note: Note) -> Note:
        return replace(note, text=translate(NOTES[note.code], language))

    return replace(
        found,
        notes=tuple(said(note) for note in found.notes),
        unknown={name: said(note) for name, note in found.unknown.items()},
    )


def as_text(found: Capacity, language: str) -> str:
    """Return the answer for people."""
    return "\n".join(terminal(line) for line in _lines(found, language))


def _lines(found: Capacity, language: str) -> Iterator[str]:
    def say(key: str, **values: str) -> str:
        return translate(CAPACITY[key], language).format(**values)

    window = f"{timestamp(found.time_range.start)} to {timestamp(found.time_range.end)}"
    target = {"share": percent(found.objective_percent), "target": f"{found.wait_target_seconds:g} s"}
    yield say("queue", queue=found.queue_name, window=window)
    if found.slots is None:
        yield say("unknown", reason=found.unknown["slots"].text, **target)
    else:
        bounds = {"low": decimal(found.slots_at_least), "high": decimal(found.slots_at_most)}
        yield say("slots", slots=decimal(found.slots), **target, **bounds)
        yield say(
            "demand",
            tasks=f"{found.tasks:,}",
            mean=f"{found.mean_run_seconds:.3g} s",
            load=decimal(found.load_slots),
        )
    yield from _present(found, say)
    if found.resolution_seconds is not None:
        yield say("resolution", step=seconds(found.resolution_seconds), source=say(f"from_{found.arrivals_from}"))
    if found.measured_percent is not None and found.replayed_percent is not None:
        yield say("checked", measured=percent(found.measured_percent), replayed=percent(found.replayed_percent))
    elif found.measured_percent is not None:
        yield say("measured", measured=percent(found.measured_percent))
    reasons = [note for name, note in found.unknown.items() if name != "slots"]
    yield from (f"- {text}" for text in dict.fromkeys(note.text for note in (*reasons, *found.notes)))
    if found.slots is not None:
        yield say("assumptions")


def _present(found: Capacity, say: Callable[..., str]) -> Iterator[str]:
    """Yield what the present slots were, and what the others would have cost or saved."""
    if found.present_slots is None:
        return
    changed = found.present_slots_min != found.present_slots_max
    spread = f" ({decimal(found.present_slots_min)} to {decimal(found.present_slots_max)})" if changed else ""
    yield say("present", slots=decimal(found.present_slots) + spread, hours=decimal(found.present_slot_hours))
    if found.slot_hours is not None and found.saved_slot_hours is not None:
        saved = found.saved_slot_hours
        yield say("saved" if saved >= 0 else "cost", hours=decimal(found.slot_hours), difference=decimal(abs(saved)))
