"""Settings as frozen values, built once; reading them (flag, environment, file) is `celerymeter.cli`'s business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from celerymeter.urls import without_password

RUNTIME_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
WAIT_BUCKETS = (0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0)


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """How to reach the broker, and what the cluster renamed (``celery_settings``: ``event_exchange`` …)."""

    url: str = field(repr=False)
    transport_options: Mapping[str, object] = field(default_factory=dict, repr=False)
    celery_settings: Mapping[str, object] = field(default_factory=dict)
    event_queue_ttl: float = 30.0
    event_queue_expires: float = 60.0

    def __post_init__(self) -> None:
        """Take redis-py's ``unix://path?db=1`` too; kombu calls it ``redis+socket://path?virtual_host=1``."""
        if self.url.startswith("unix://"):
            url = self.url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=")
            object.__setattr__(self, "url", url)

    @property
    def safe_url(self) -> str:
        """The URL without its password."""
        return without_password(self.url)

    @property
    def transport(self) -> str:
        """kombu's transport name: ``redis``, ``rediss``, ``sentinel``, ``amqp`` …"""
        return self.url.split("://", 1)[0].split("+", 1)[0].lower()


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps: what exceeds one is folded into ``__other__`` or evicted, and counted."""

    task_names: int = 1000
    queues: int = 1000
    workers: int = 10_000
    exceptions: int = 100
    task_pairs: int = 5000
    tracked_tasks: int = 100_000


@dataclass(frozen=True, slots=True)
class ExporterSettings:
    """Everything the exporter needs; durations in seconds."""

    broker: BrokerSettings
    listen: str = "0.0.0.0:9808"
    web_config_file: str | None = None
    queues: tuple[str, ...] = ()
    poll_interval: float = 15.0
    inspect_interval: float = 60.0
    worker_retention: float = 3600.0
    rate_window: float = 60.0
    runtime_buckets: tuple[float, ...] = RUNTIME_BUCKETS
    wait_buckets: tuple[float, ...] = WAIT_BUCKETS
    limits: Limits = Limits()
    task_hostname_label: bool = False
    count_retry_exceptions: bool = False
    solo_grace: float = 3600.0
    enable_events: bool = False
    rabbitmq_management_url: str | None = field(default=None, repr=False)
    compat: Literal["celery-exporter"] | None = None
    """Whose families to serve beside our own."""
