"""``celerymeter exporter``: its options, and the settings that they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import click

from celerymeter.cli.command import F, Values, setting, settings_command
from celerymeter.cli.options import FILE, broker_options, broker_settings, default_of, fields_of, options
from celerymeter.cli.values import BUCKETS, COUNT, DURATION, HTTP_URL, INTERVAL, LISTEN, NAMES
from celerymeter.settings import BrokerSettings, ExporterSettings, Limits
from celerymeter.urls import without_password

_default = partial(default_of, ExporterSettings)


def _limit(name: str, text: str) -> Callable[[F], F]:
    return setting(f"--max-{name.replace('_', '-')}", COUNT, default=default_of(Limits, name), help=text)


def _switch(name: str, text: str) -> Callable[[F], F]:
    flag = name.replace("_", "-")
    return setting(f"--{flag}/--no-{flag}", default=False, help=text)


serving = options(
    setting(
        "--listen",
        LISTEN,
        default=_default("listen"),
        help="Address for /metrics; [::]:9808 takes IPv6 as well, port 0 a free port that the first log line names.",
    ),
    setting(
        "--web.config.file",
        FILE,
        help="TLS and basic auth for /metrics, in the format of Prometheus' own exporters.",
    ),
    setting(
        "--compat",
        click.Choice(["celery-exporter"]),
        help="Serve what dashboards and alerts for this other exporter query, beside our own families.",
    ),
)
polling = options(
    setting(
        "--queues",
        NAMES,
        help="Look at the depth of these queues only; without it, of all that broker, workers and events name.",
    ),
    setting(
        "--poll-interval", INTERVAL, default=_default("poll_interval"), help="Between two looks at queues and workers."
    ),
    setting(
        "--inspect-interval",
        INTERVAL,
        default=_default("inspect_interval"),
        help="At least this long between two questions for a worker's waiting tasks; longer for one that holds many.",
    ),
    setting(
        "--rabbitmq-management-url",
        HTTP_URL,
        mask=without_password,
        help="RabbitMQ's management API (http://USER:PASSWORD@HOST:15672), for unacknowledged messages.",
    ),
    setting("--rabbitmq-management-url-file", FILE, help="File that holds that URL."),
)
workers = options(
    setting(
        "--worker-retention",
        DURATION,
        default=_default("worker_retention"),
        help="How long a worker's series stay after it is gone; longer than any alert's `for`.",
    ),
    setting(
        "--solo-grace",
        DURATION,
        default=_default("solo_grace"),
        help="How long a solo worker that runs a task may be silent and count as up.",
    ),
    _switch("enable_events", "Tell workers that send no task events to send them (`celery control enable_events`)."),
)
tasks = options(
    setting(
        "--rate-window",
        INTERVAL,
        default=_default("rate_window"),
        help="Window of the throughput and error-ratio gauges.",
    ),
    setting(
        "--runtime-buckets",
        BUCKETS,
        default=_default("runtime_buckets"),
        help="Histogram bounds of run times in seconds, at most 14.",
    ),
    setting(
        "--wait-buckets",
        BUCKETS,
        default=_default("wait_buckets"),
        help="Histogram bounds of waits in seconds, at most 14.",
    ),
    _switch("task_hostname_label", "Label task series with the worker's hostname as well: series times workers."),
    _switch("count_retry_exceptions", "Count the exceptions of retried runs too, not of failed ones alone."),
)
limits = options(
    _limit("task_names", "Distinct task names; the rest is __other__."),
    _limit("queues", "Distinct queues; the rest is __other__."),
    _limit("workers", "Workers with series of their own."),
    _limit("exceptions", "Distinct exception classes; the rest is __other__."),
    _limit("task_pairs", "Distinct pairs of task name and queue; the rest is __other__."),
    _limit("tracked_tasks", "Unfinished tasks kept in memory (about 0.5 kB each); beyond it the oldest are dropped."),
)
events = options(
    setting(
        "--event-queue-ttl",
        DURATION,
        default=default_of(BrokerSettings, "event_queue_ttl"),
        help="RabbitMQ: how long an event may wait in our queue.",
    ),
    setting(
        "--event-queue-expires",
        INTERVAL,
        default=default_of(BrokerSettings, "event_queue_expires"),
        help="RabbitMQ: how long our event queue outlives a lost connection.",
    ),
)


def exporter_settings(values: Values) -> ExporterSettings:
    """The exporter's settings of its options; raises `SettingsError`, for what is in the web config file as well."""
    broker = replace(broker_settings(values), **fields_of(BrokerSettings, values))
    given = fields_of(ExporterSettings, values)
    if web_config := given.get("web_config_file"):
        from celerymeter.httpd import load_web_config

        load_web_config(web_config)
        given["web_config_file"] = str(web_config)
    return ExporterSettings(**{**given, "broker": broker, "limits": Limits(**fields_of(Limits, values, prefix="max_"))})


@settings_command("exporter", build=exporter_settings, logs="json")
@broker_options
@serving
@polling
@workers
@tasks
@limits
@events
def command(settings: ExporterSettings) -> int:
    """Read a Celery cluster's broker and publish /metrics for Prometheus.

    One exporter a broker is enough. It listens to the workers' events (`celery worker -E`), looks at the queues, and
    never touches a task. Every option is also a variable and a key of the --config file.
    """
    from celerymeter.exporter import run

    return run(settings)
