"""``celerymeter demo``: the whole stack on this machine."""

from __future__ import annotations

import click

from celerymeter.cli.command import Values, setting, settings_command
from celerymeter.cli.values import INTERVAL
from celerymeter.demo.load import LOADS
from celerymeter.demo.ports import Ports, parse_ports
from celerymeter.demo.settings import DemoSettings


def demo_settings(values: Values) -> DemoSettings:
    """The settings; raises `SettingsError` for ``--ports``."""
    return DemoSettings(duration=values["duration"], ports=parse_ports(values["ports"]), load=values["load"])


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
def command(settings: DemoSettings) -> int:
    """Run the whole stack on this machine, with a workload.

    Redis, two workers, the exporter, the control API, Prometheus with the shipped rules, Alertmanager with the shipped
    routing. Needs the binaries of Prometheus and Alertmanager; Redis comes along. Writes below .demo/ in the current
    folder; .demo/env holds the addresses while it runs.
    """
    from celerymeter.demo.run import run

    return run(settings)
