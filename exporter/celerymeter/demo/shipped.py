"""Where the shipped rules, routing and dashboards lie: in the wheel, or in the checkout that it is built from."""

from __future__ import annotations

from pathlib import Path

import celerymeter
from celerymeter.errors import ServerMissing

_PACKAGE = Path(celerymeter.__file__).parent


def shipped(part: str) -> Path:
    """The folder ``alerts`` or ``grafana/dashboards``; raises `ServerMissing` when this installation lacks it."""
    places = (_PACKAGE / "bundle" / part, _PACKAGE.parents[1] / part)
    for place in places:
        if place.is_dir():
            return place
    raise ServerMissing(f"{part} is not part of this installation (looked for {places[0]} and {places[1]})")
