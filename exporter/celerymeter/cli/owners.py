"""``celerymeter bundle owners``: which team gets which alert, from one file, as relabeling for Prometheus.

Prometheus then puts a label ``owner`` on alerts before it sends them, so no rule changes. The first entry of the file
that matches counts; Prometheus lets the last one count, so they are written in reverse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import click

from celerymeter import escaping
from celerymeter.cli.configfile import load
from celerymeter.errors import SettingsError
from celerymeter.escaping import terminal_lines

OWNER = re.compile(r"[\w.@-]{1,100}")
OURS = "Celery[A-Za-z]*"
"""Our alerts, but for the Watchdog, which is nobody's."""
LABELS = {"queues": "queue_name", "tasks": "name"}
"""Labels of alerts, by the keys of an entry."""
Relabeling: TypeAlias = "Mapping[str, str | list[str]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An owner, and patterns of what is its; in those ``*`` stands for anything, as in Celery's ``task_routes``."""

    owner: str
    queues: Sequence[str] = ()
    tasks: Sequence[str] = ()
    clusters: Sequence[str] = ()
    """Only in these; without any in all."""


@dataclass(frozen=True, slots=True)
class Owners:
    """The file: who owns what no entry matches (``""``: nobody), and the entries in order."""

    default: str
    entries: Sequence[Entry]


def relabelings(owners: Owners) -> Iterator[Relabeling]:
    """Yield what ``alerting.alert_relabel_configs`` of Prometheus takes."""
    if owners.default:
        yield _relabeling(["alertname"], [OURS], owners.default)
    for entry in reversed(owners.entries):
        for key, label in LABELS.items():
            if patterns := getattr(entry, key):
                clusters = _regex(entry.clusters) if entry.clusters else "[^;]*"
                yield _relabeling(["alertname", "cluster", label], [OURS, clusters, _regex(patterns)], entry.owner)


def _relabeling(labels: list[str], regexes: Sequence[str], owner: str) -> Relabeling:
    return {
        "source_labels": labels,
        "separator": ";",
        "regex": ";".join(regexes),
        "target_label": "owner",
        "replacement": owner,
    }


def _regex(patterns: Sequence[str]) -> str:
    """Return one expression for patterns; a name may have line breaks, and the label must be there to match ``*``."""
    expressions = [
        "(?s:.*)".join(map(re.escape, each.split("*"))) if each.strip("*") else "(?s:.+)" for each in patterns
    ]
    return f"(?:{'|'.join(expressions)})"


def read(path: Path) -> Owners:
    """Read the file; raises `SettingsError` that names the place."""
    found = _mapping(load(path), {"default", "owners"}, where=str(path))
    listed = found.get("owners", [])
    if not isinstance(listed, list):
        raise SettingsError(f"{path}: owners must be a list")
    default = _owner(found["default"], where=f"{path}: default") if "default" in found else ""
    return Owners(default, [_entry(each, where=f"{path}: owners[{number}]") for number, each in enumerate(listed)])


def _entry(content: object, *, where: str) -> Entry:
    found = _mapping(content, {"owner", "queues", "tasks", "clusters"}, where=where)
    if "owner" not in found or not LABELS.keys() & found.keys():
        raise SettingsError(f"{where} needs an owner, and queues or tasks")
    patterns = {key: _patterns(found.get(key, []), where=f"{where}.{key}") for key in ("queues", "tasks", "clusters")}
    if not patterns["queues"] and not patterns["tasks"]:
        raise SettingsError(f"{where} owns nothing: its queues and tasks are empty")
    return Entry(owner=_owner(found["owner"], where=f"{where}.owner"), **patterns)


def _mapping(content: object, known: set[str], *, where: str) -> Mapping[str, object]:
    if not isinstance(content, dict):
        raise SettingsError(f"{where} must be a mapping")
    if unknown := sorted(map(str, content.keys() - known)):
        raise SettingsError(f"{where}: unknown key {escaping.name(unknown[0])}; known are {', '.join(sorted(known))}")
    return content


def _owner(content: object, *, where: str) -> str:
    if not isinstance(content, str) or not OWNER.fullmatch(content):
        raise SettingsError(f"{where} must be a name of letters, digits and . _ - @")
    return content


def _patterns(content: object, *, where: str) -> Sequence[str]:
    if not isinstance(content, list) or not all(isinstance(each, str) and each for each in content):
        raise SettingsError(f"{where} must be a list of names, in which * stands for anything")
    return content


@click.command("owners")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def command(file: Path) -> int:
    """Print relabeling rules that add a label `owner` to alerts, from the teams in FILE.

    Put the output below `alerting: alert_relabel_configs:` in prometheus.yml, or into the secret that
    `additionalAlertRelabelConfigs` of the Prometheus operator names.
    """
    import yaml

    found = [dict(each) for each in relabelings(read(file))]
    click.echo(terminal_lines(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1000).rstrip("\n")))
    return 0
