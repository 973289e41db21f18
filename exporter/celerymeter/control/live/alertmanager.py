"""Whether Alertmanager answers."""

from __future__ import annotations

import requests

from celerymeter.control.health import Component

TIMEOUT = 2.0


class AlertmanagerProbe:
    """Asks at each call; never raises."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/-/healthy"

    def __call__(self) -> Component:
        """Its condition."""
        try:
            status = requests.get(self._url, timeout=TIMEOUT, allow_redirects=False).status_code
        except requests.RequestException:
            return Component("alertmanager", "failed", "it cannot be reached")
        return Component("alertmanager", "ok" if status == 200 else "failed", f"it answered {status}")
