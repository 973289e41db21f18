"""What the doctor is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from celerymeter.settings import BrokerSettings


@dataclass(frozen=True, slots=True)
class DoctorSettings:
    """Where to look; URLs may hold passwords. ``watch`` is how long to listen to events, in seconds."""

    broker: BrokerSettings
    exporter_url: str | None = field(default=None, repr=False)
    prometheus_url: str | None = field(default=None, repr=False)
    control_url: str | None = field(default=None, repr=False)
    cluster: str | None = None
    selector: str = ""
    watch: float = 7.0
    format: Literal["text", "json"] = "text"
