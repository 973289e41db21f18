"""What the demo is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from celerymeter.demo.ports import Ports


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """``duration`` in seconds, ``None`` until it is stopped; everything it writes is below ``folder``.

    ``slack_url_file`` holds the URL of an incoming webhook, which only Alertmanager reads.
    """

    duration: float | None = None
    ports: Ports = field(default_factory=Ports)
    load: str = "light"
    folder: Path = Path(".demo")
    slack_url_file: Path | None = None
