"""The settings of the broker connection and of the exporter, as frozen values that are built once.

Each field carries its option (`celerymeter.options`): to add a setting, add a field here and use it. Durations are in
seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import click

from celerymeter.buckets import RUNTIME_BUCKETS, WAIT_BUCKETS
from celerymeter.kinds import (
    BROKER_URL,
    BUCKETS,
    COUNT,
    DURATION,
    FILE,
    HEADER,
    HTTP_URL,
    INTERVAL,
    KEY_JSON,
    LISTEN,
    NAMES,
    SECRET_TEXT,
    SWITCH,
    TEXT,
)
from celerymeter.options import file_of, group, option, secret, setting
from celerymeter.urls import without_password


def headers_setting() -> Mapping[str, str]:
    """Return the field for HTTP headers of a program that reads Prometheus."""
    return setting(
        {},
        HEADER,
        "HTTP header to send to Prometheus, such as a tenant or a token; may be repeated.",
        flag="--prometheus-header",
        repeated=True,
    )


def cluster_setting(purpose: str) -> str | None:
    """Return the field for the cluster of a program that reads Prometheus, such as one ``to serve``."""
    return setting(None, TEXT, f"The cluster to {purpose}, if Prometheus has metrics of several (the label cluster).")


def management_setting(purpose: str) -> str | None:
    """Return the field for RabbitMQ's management API, such as one ``which reports unacknowledged messages``."""
    return setting(
        None,
        HTTP_URL,
        f"RabbitMQ's management API (http://USER:PASSWORD@HOST:15672), {purpose}.",
        file="File that holds the URL of the management API.",
    )


def selector_setting() -> str:
    """Return the field for the label matchers of a program that reads Prometheus."""
    return setting("", TEXT, "Label matchers to add to every query, such as 'env=\"prod\"'.")


UNIX_SOCKETS = {"redis+socket": "redis", "rediss+socket": "rediss"}
"""The transports of the only schemes with a ``+`` that kombu's Redis transport knows."""
_SCHEMES = re.compile(r"(?:^|;)([a-zA-Z][\w+.-]{0,30})://")


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Settings of the broker connection, and names on the broker that the cluster changed."""

    url: str = field(
        repr=False,
        metadata=option(
            BROKER_URL,
            "URL of the cluster's broker, as in Celery's broker_url: redis://, rediss://, redis+socket://, amqp:// or "
            "sentinel://HOST;sentinel://HOST. Use --broker-url-file where others can see the process list.",
            flag="--broker-url",
            file="File that holds the broker URL; it is read again for every new connection.",
        ),
    )
    transport_options: Mapping[str, object] = setting(
        {},
        KEY_JSON,
        "An entry of Celery's broker_transport_options, with the value that the workers use; may be repeated. "
        "Example: global_keyprefix=prod_",
        flag="--transport-option",
        repeated=True,
    )
    celery_settings: Mapping[str, object] = setting(
        {},
        KEY_JSON,
        "A Celery setting that the cluster changed and that affects messages on the broker, such as "
        "event_exchange or control_exchange; may be repeated.",
        flag="--celery-setting",
        repeated=True,
    )
    event_queue_ttl: float = setting(30.0, DURATION, "RabbitMQ: how long an event may wait in celerymeter's own queue.")
    event_queue_expires: float = setting(60.0, INTERVAL, "RabbitMQ: how long that queue survives a lost connection.")
    url_file: Path | None = field(default=None, metadata=file_of("--broker-url"))
    """The file that the URL was read from, if any: it may have another password by the next connection."""

    def __post_init__(self) -> None:
        """Accept redis-py's ``unix://path?db=1`` too; kombu calls it ``redis+socket://path?virtual_host=1``."""
        if self.url.startswith("unix://"):
            url = self.url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=")
            object.__setattr__(self, "url", url)

    @property
    def safe_url(self) -> str:
        """The URL without its password."""
        return without_password(self.url)

    @property
    def transport(self) -> str:
        """kombu's transport name: ``redis``, ``rediss``, ``sentinel``, ``amqp`` …

        A scheme that kombu takes apart and does not know stays whole, in any of several URLs: for ``redis+cluster://``
        kombu connects to localhost, whatever the host.
        """
        names = [UNIX_SOCKETS.get(scheme.lower(), scheme.lower()) for scheme in _SCHEMES.findall(self.url)]
        return next(
            (name for name in names if "+" in name), names[0] if names else self.url.partition("://")[0].lower()
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the tracker; names beyond a limit are counted as ``__other__``, and tasks are dropped."""

    task_names: int = setting(
        1000, COUNT, "Maximum number of task names; further ones are counted as __other__.", flag="--max-task-names"
    )
    queues: int = setting(
        1000, COUNT, "Maximum number of queues; further ones are counted as __other__.", flag="--max-queues"
    )
    workers: int = setting(10_000, COUNT, "Maximum number of workers with series of their own.", flag="--max-workers")
    exceptions: int = setting(
        100,
        COUNT,
        "Maximum number of exception classes; further ones are counted as __other__.",
        flag="--max-exceptions",
    )
    task_pairs: int = setting(
        5000,
        COUNT,
        "Maximum number of pairs of task name and queue; further ones are counted as __other__.",
        flag="--max-task-pairs",
    )
    tracked_tasks: int = setting(
        100_000,
        COUNT,
        "Maximum number of unfinished tasks in memory, about 0.5 kB each; beyond it the oldest are dropped.",
        flag="--max-tracked-tasks",
    )


@dataclass(frozen=True, slots=True)
class ExporterSettings:
    """Everything that the exporter needs."""

    broker: BrokerSettings = field(metadata=group(BrokerSettings))
    listen: str = setting(
        "0.0.0.0:9808",
        LISTEN,
        "Address for /metrics. [::]:9808 accepts IPv6 too; port 0 takes a free port, which the first log line names.",
    )
    web_config_file: Path | None = setting(
        None,
        FILE,
        "File with TLS and basic authentication for /metrics, in the format of Prometheus' own exporters.",
        flag="--web.config.file",
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        NAMES,
        "Host names by which clients may address the exporter; a request for any other name is refused, so that no web "
        "page can read metrics through a name of its own. IP addresses and localhost are always allowed. By default "
        "all names.",
    )
    push_token: str | None = secret(
        None,
        "File with the token that workers send when they post their totals, for brokers without events. Opens the path "
        "/-/push.",
        kind=SECRET_TEXT,
    )
    open_push: bool = setting(
        False, SWITCH, "Open /-/push without a token, for networks in which only the workers reach the exporter."
    )
    compat: Literal["celery-exporter"] | None = setting(
        None,
        click.Choice(["celery-exporter"]),
        "Also serve the metrics that dashboards and alerts made for celery-exporter query.",
    )
    queues: tuple[str, ...] = setting(
        (), NAMES, "Poll only these queues. By default: all queues that the broker, workers or events name."
    )
    poll_interval: float = setting(15.0, INTERVAL, "Time between two polls of queues and workers.")
    inspect_interval: float = setting(
        60.0,
        INTERVAL,
        "Minimum time between two requests for the tasks that a worker holds; longer for a worker that holds many.",
    )
    rabbitmq_management_url: str | None = management_setting("which reports unacknowledged messages")
    state_file: Path | None = setting(
        None,
        FILE,
        "File that keeps counters and names of queues, so that they continue after a restart of the exporter. It is "
        "written every 10 s and at the end. Its folder must exist.",
    )
    worker_retention: float = setting(
        3600.0, DURATION, "How long the series of a stopped worker stay; must be longer than the `for` of any alert."
    )
    drain_time: float = setting(
        1800.0,
        DURATION,
        "How long the runs of a worker that is shutting down count as in progress without any event from it.",
    )
    solo_grace: float = setting(
        3600.0, DURATION, "How long a worker with the solo pool may be silent during a task and still count as up."
    )
    enable_events: bool = setting(
        False, SWITCH, "Tell workers that send no task events to start sending them (`celery control enable_events`)."
    )
    rate_window: float = setting(60.0, INTERVAL, "Window of the throughput and error-ratio gauges.")
    runtime_buckets: tuple[float, ...] = setting(
        RUNTIME_BUCKETS, BUCKETS, "Histogram buckets of task run times: upper bounds in seconds, at most 14."
    )
    wait_buckets: tuple[float, ...] = setting(
        WAIT_BUCKETS, BUCKETS, "Histogram buckets of waiting times: upper bounds in seconds, at most 14."
    )
    task_hostname_label: bool = setting(
        False,
        SWITCH,
        "Add the worker's hostname to task metrics; this multiplies their series by the number of workers.",
    )
    count_retry_exceptions: bool = setting(
        False, SWITCH, "Count the exceptions of retried runs too, not only those of failed tasks."
    )
    limits: Limits = field(default=Limits(), metadata=group(Limits))
