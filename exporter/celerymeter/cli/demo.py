"""``celerymeter demo``: the whole stack on this machine."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import click

from celerymeter.cli.command import Values, setting, settings_command
from celerymeter.cli.options import FILE
from celerymeter.cli.secrets import read_secret
from celerymeter.cli.values import INTERVAL
from celerymeter.demo.load import LOADS
from celerymeter.demo.ports import Ports, parse_ports
from celerymeter.demo.settings import DemoSettings
from celerymeter.errors import SettingsError

WEBHOOKS = "https://api.slack.com/messaging/webhooks"


def demo_settings(values: Values) -> DemoSettings:
    """The settings; raises `SettingsError` for ``--ports`` and ``--slack-url-file``."""
    return DemoSettings(
        duration=values["duration"],
        ports=parse_ports(values["ports"]),
        load=values["load"],
        slack_url_file=_checked(values["slack_url_file"]),
    )


def _checked(path: Path | None) -> Path | None:
    """The file, once it is known to hold what Alertmanager will read there; its text goes nowhere from here."""
    if path is None:
        return None
    wanted = f"make an incoming webhook ({WEBHOOKS}) and put its URL, and nothing else, into the file"
    if path.exists() and not path.is_file():
        raise SettingsError(f"--slack-url-file: {path} is no file that Alertmanager can read again for every message")
    try:
        text = read_secret(path, name="slack_url_file").strip()
    except SettingsError as error:
        raise SettingsError(f"{error}; {wanted}") from error
    if not _is_web_address(text):
        raise SettingsError(f"--slack-url-file: {path} holds no http(s) URL; {wanted}")
    return path.absolute()


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and text.split() == [text]


@settings_command("demo", build=demo_settings)
@setting("--duration", INTERVAL, help="Stop by itself after so long; without it, at ^C.")
@setting(
    "--ports",
    metavar="NAME=PORT,…",
    default=str(Ports()),
    help="Where the parts listen on loopback: what is named differs from the default, auto is any free port. "
    "Just auto: all of them.",
)
@setting(
    "--load",
    click.Choice(list(LOADS)),
    default="light",
    help="How much is sent: light and busy are healthy, faulty makes alerts fire.",
)
@setting(
    "--slack-url-file",
    FILE,
    help="File that holds the URL of an incoming webhook of Slack: warnings and criticals go there as well.",
)
def command(settings: DemoSettings) -> int:
    """Run the whole stack on this machine, with a workload.

    Redis, two workers, the exporter, the control API, Prometheus with the shipped rules, Alertmanager with the shipped
    routing. Needs the binaries of Prometheus and Alertmanager; Redis comes along. Writes below .demo/ in the current
    folder; .demo/env holds the addresses while it runs.
    """
    from celerymeter.demo.run import run

    return run(settings)
