"""The settings of the doctor, as one frozen value; each field carries its option."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import click

from celerymeter.kinds import HTTP_URL, INTERVAL
from celerymeter.options import group, setting
from celerymeter.settings import BrokerSettings, cluster_setting, management_setting, selector_setting


@dataclass(frozen=True, slots=True)
class DoctorSettings:
    """Settings of the doctor; ``watch`` is in seconds."""

    broker: BrokerSettings = field(metadata=group(BrokerSettings))
    rabbitmq_management_url: str | None = management_setting("which tells of queues that nobody reads")
    exporter_url: str | None = setting(None, HTTP_URL, "The exporter, such as http://127.0.0.1:9808.")
    prometheus_url: str | None = setting(
        None, HTTP_URL, "The Prometheus that should scrape the exporter, such as http://127.0.0.1:9090."
    )
    control_url: str | None = setting(None, HTTP_URL, "The control API, such as http://127.0.0.1:8000.")
    cluster: str | None = cluster_setting("check")
    selector: str = selector_setting()
    watch: float = setting(
        7.0,
        INTERVAL,
        "How long to listen for events: at least three worker heartbeats (6 s), longer on a quiet cluster.",
    )
    format: Literal["text", "json"] = setting(
        "text", click.Choice(["text", "json"]), "text: one line for each finding; json: one object."
    )
