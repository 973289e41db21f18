"""What the demo is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from celerymeter.demo.ports import Ports


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """``duration`` in seconds, ``None`` until it is stopped; everything it writes is below ``folder``."""

    duration: float | None = None
    ports: Ports = field(default_factory=Ports)
    load: str = "light"
    folder: Path = Path(".demo")
