"""Asks the running parts of a demo how they are; a part that does not answer is no error here."""

from __future__ import annotations

import time
from types import TracebackType

import requests

from celerymeter.demo.figures import Figures, read_page
from celerymeter.demo.site import Site
from celerymeter.errors import PrometheusError
from celerymeter.prometheus import PrometheusClient, PrometheusSettings

ALWAYS_FIRING = "Watchdog"


class Watch:
    """Reads the exporter's page and Prometheus' alerts."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._session = requests.Session()
        self._prometheus = PrometheusClient(PrometheusSettings(site.prometheus_url, timeout=2.0, connect_timeout=1.0))

    def figures(self) -> Figures | None:
        """The exporter's figures now; ``None`` when it does not answer."""
        try:
            answer = self._session.get(f"{self._site.exporter_url}/metrics", timeout=2)
        except requests.RequestException:
            return None
        return read_page(answer.text, time=time.monotonic()) if answer.ok else None

    def workers_up(self) -> int:
        """Workers that the exporter sees alive."""
        figures = self.figures()
        return figures.up if figures else 0

    def firing(self) -> tuple[str, ...]:
        """Names of the alerts that fire, worst first, without the one that always does."""
        query = 'count by (alertname, severity) (ALERTS{alertstate="firing"})'
        try:
            samples = self._prometheus.instant(query).samples
        except PrometheusError:
            return ()
        ranked = sorted(samples, key=lambda sample: (sample.label("severity") != "critical", sample.label("alertname")))
        return tuple(dict.fromkeys(s.label("alertname") for s in ranked if s.label("alertname") != ALWAYS_FIRING))

    def slack_refuses(self) -> bool:
        """Whether a message to Slack has failed; Alertmanager goes on trying where that may help."""
        query = 'sum(alertmanager_notification_requests_failed_total{integration="slack"}) > 0'
        try:
            return len(self._prometheus.instant(query)) > 0
        except PrometheusError:
            return False

    def scraped(self) -> bool:
        """Whether Prometheus has data of the exporter."""
        try:
            return len(self._prometheus.instant("celerymeter_broker_up == 1")) > 0
        except PrometheusError:
            return False

    def alerting(self) -> bool:
        """Whether Prometheus has found its Alertmanager, some 5 s after its start."""
        try:
            answer = self._session.get(f"{self._site.prometheus_url}/api/v1/alertmanagers", timeout=2)
            return bool(answer.json()["data"]["activeAlertmanagers"])
        except (requests.RequestException, ValueError, KeyError):
            return False

    def close(self) -> None:
        """Let go of connections."""
        self._prometheus.close()
        self._session.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
