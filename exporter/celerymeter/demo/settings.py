"""The settings of the demo, as one frozen value; each field carries its option."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from celerymeter.demo.processes import free_ports, is_free
from celerymeter.demo.workload import LOADS
from celerymeter.errors import PortInUse, SettingsError
from celerymeter.kinds import INTERVAL, SWITCH, Kind
from celerymeter.options import read_secret, setting

AUTO = 0
WEBHOOKS = "https://api.slack.com/messaging/webhooks"


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports on loopback; 0 is any free one."""

    exporter: int = 9808
    prometheus: int = 9090
    alertmanager: int = 9093
    control: int = 8000
    control_metrics: int = 9809
    grafana: int = AUTO
    redis: int = AUTO
    sink: int = AUTO

    def settled(self) -> Ports:
        """Return the ports with a free one for each 0; raises `PortInUse` when a chosen one is taken."""
        for name, port in self._items():
            if port and not is_free(port):
                raise PortInUse(
                    f"port {port} ({_flag(name)}) is in use; choose another with --ports {_flag(name)}=PORT, or use "
                    "--ports auto"
                )
        spare = iter(set(free_ports(2 * len(fields(self)))) - {port for _, port in self._items()})
        return Ports(**{name: port or next(spare) for name, port in self._items()})

    def refuse_shared(self) -> None:
        """Raise `SettingsError` when two parts have the same port."""
        owners: dict[int, str] = {}
        for name, port in self._items():
            if port and (other := owners.setdefault(port, name)) != name:
                raise SettingsError(f"--ports: {_flag(other)} and {_flag(name)} cannot both use port {port}")

    def _items(self) -> list[tuple[str, int]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]

    def __str__(self) -> str:
        return ",".join(f"{_flag(name)}={port or 'auto'}" for name, port in self._items())


def _flag(name: str) -> str:
    return name.replace("_", "-")


def parse_ports(text: str) -> Ports:
    """Read ``auto``, or ``name=port`` pairs that change the defaults; raises `SettingsError`."""
    if text.strip() == "auto":
        return Ports(**{field.name: AUTO for field in fields(Ports)})
    ports = replace(Ports(), **dict(_pair(part.strip()) for part in text.split(",") if part.strip()))
    ports.refuse_shared()
    return ports


def _pair(text: str) -> tuple[str, int]:
    flag, _, value = (word.strip() for word in text.partition("="))
    names = {_flag(field.name): field.name for field in fields(Ports)}
    if _flag(flag) not in names:
        raise SettingsError(f"--ports: {text!r} must be auto or NAME=PORT, where NAME is one of {', '.join(names)}")
    if value == "auto":
        return names[_flag(flag)], AUTO
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise SettingsError(f"--ports: {text!r}: the port must be auto or a number from 1 to 65535")
    return names[_flag(flag)], int(value)


def check_slack_url_file(value: Any) -> Path:
    """Return the absolute path of a file that holds a webhook's URL; raises `SettingsError`.

    Only Alertmanager uses the URL; it goes nowhere from here.
    """
    path = Path(value)
    advice = f"create an incoming webhook ({WEBHOOKS}) and put its URL, and nothing else, into the file"
    if path.exists() and not path.is_file():
        raise SettingsError(
            f"--slack-url-file: {path} must be a regular file: Alertmanager reads it again for every message"
        )
    try:
        url = read_secret(path, flag="--slack-url-file").strip()
    except SettingsError as error:
        raise SettingsError(f"{error}; {advice}") from error
    if not _is_web_url(url):
        raise SettingsError(f"--slack-url-file: {path} does not hold an http(s) URL; {advice}")
    return path.absolute()


def _is_web_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and text.split() == [text]


PORTS = Kind("name=port,…", "a list of ports", lambda value: parse_ports(str(value)))
SLACK_URL_FILE = Kind("file", "a file", check_slack_url_file)


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Settings of the demo; ``duration`` is in seconds, or ``None`` until it is stopped."""

    duration: float | None = setting(None, INTERVAL, "Stop after this time. By default the demo runs until ^C.")
    ports: Ports = setting(
        Ports(),
        PORTS,
        "Ports on loopback. A port that you do not name keeps its default; NAME=auto takes any free port, and auto "
        "alone takes free ports for everything.",
    )
    load: str = setting(
        "light",
        click.Choice(list(LOADS)),
        "How many tasks to send: light and busy are healthy, faulty makes alerts fire.",
    )
    aggregate: bool = setting(
        False,
        SWITCH,
        "Let the workers count their tasks and publish totals instead of events (celerymeter.aggregate).",
    )
    slack_url_file: Path | None = setting(
        None,
        SLACK_URL_FILE,
        "File that holds the URL of a Slack incoming webhook: warnings and critical alerts are also sent to Slack.",
    )
