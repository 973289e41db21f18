"""The settings of the demo, as one frozen value; each field carries its option."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from celerymeter.demo.load import LOADS
from celerymeter.demo.ports import Ports, parse_ports
from celerymeter.errors import SettingsError
from celerymeter.kinds import INTERVAL, Kind
from celerymeter.options import read_secret, setting

WEBHOOKS = "https://api.slack.com/messaging/webhooks"


class PortList(Kind):
    """``NAME=PORT,…``, or ``auto``."""

    name = "name=port,…"

    def parse(self, value: Any) -> Ports:
        """Return the ports; raises `SettingsError`."""
        return value if isinstance(value, Ports) else parse_ports(str(value))


class SlackUrlFile(Kind):
    """A file that holds the URL of an incoming webhook. Only Alertmanager uses the URL; the value is the path."""

    name = "file"

    def parse(self, value: Any) -> Path:
        """Return the absolute path, once the file is known to be usable; raises `SettingsError`."""
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


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """How to run the demo; ``duration`` is in seconds, or ``None`` until it is stopped."""

    duration: float | None = setting(None, INTERVAL, "Stop after this time. By default the demo runs until ^C.")
    ports: Ports = setting(
        Ports(),
        PortList(),
        "Ports on loopback. A port that you do not name keeps its default; NAME=auto takes any free port, and auto "
        "alone takes free ports for everything.",
    )
    load: str = setting(
        "light",
        click.Choice(list(LOADS)),
        "How many tasks to send: light and busy are healthy, faulty makes alerts fire.",
    )
    slack_url_file: Path | None = setting(
        None,
        SlackUrlFile(),
        "File that holds the URL of a Slack incoming webhook: warnings and critical alerts are also sent to Slack.",
    )
