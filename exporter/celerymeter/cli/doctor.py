"""``celerymeter doctor``: its options."""

from __future__ import annotations

import click

from celerymeter.cli.command import Values, setting, settings_command
from celerymeter.cli.options import broker_options, broker_settings, default_of, fields_of, prometheus_url_option
from celerymeter.cli.values import HTTP_URL, INTERVAL
from celerymeter.doctor.settings import DoctorSettings
from celerymeter.urls import without_password


def doctor_settings(values: Values) -> DoctorSettings:
    """The settings of the options."""
    return DoctorSettings(**{**fields_of(DoctorSettings, values), "broker": broker_settings(values)})


@settings_command("doctor", build=doctor_settings)
@broker_options
@setting("--exporter-url", HTTP_URL, mask=without_password, help="The exporter, such as http://127.0.0.1:9808.")
@prometheus_url_option("The Prometheus that should scrape it, such as http://127.0.0.1:9090.")
@setting("--control-url", HTTP_URL, mask=without_password, help="The control API, such as http://127.0.0.1:8000.")
@setting("--cluster", help="The cluster to look for in Prometheus, where it has several (label cluster).")
@setting("--selector", default="", help="Further label matchers for what is looked for: 'env=\"prod\"'.")
@setting(
    "--watch",
    INTERVAL,
    default=default_of(DoctorSettings, "watch"),
    help="How long to listen to events; longer on a quiet cluster, at least three heartbeats (6 s).",
)
@setting("--format", click.Choice(["text", "json"]), default="text", help="A line a finding, or one JSON object.")
def command(settings: DoctorSettings) -> int:
    """Say what is wrong with a cluster's monitoring, and how to mend it.

    Looks at the broker and its workers, and at the exporter, Prometheus (with its rules and Alertmanagers) and control
    API where their URLs are given. Changes nothing. Each finding is one line: FAULT (figures are wrong or absent, or
    nobody would be told) or HINT, a code, what is, and what to do. Exit status 0 when there is no fault, 1 when there
    is one, 2 when a setting can never work.
    """
    from celerymeter.doctor.examine import run

    return run(settings)
