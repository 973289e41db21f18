"""Watches the running demo: the exporter's metrics, Prometheus' alerts, Alertmanager's notifications."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
from prometheus_client.parser import text_string_to_metric_families

from celerymeter import metrics
from celerymeter.demo.parts import Site
from celerymeter.errors import PrometheusError
from celerymeter.prometheus import PrometheusClient, PrometheusSettings

ENDED = tuple(family.name for family in (metrics.TASK_SUCCEEDED, metrics.TASK_FAILED, metrics.TASK_RETRIED))
MAX_READINGS = 60
MAX_BODY = 1 << 20
MAX_NOTIFICATIONS = 1000
ALWAYS_FIRING = "Watchdog"


@dataclass(frozen=True, slots=True)
class Reading:
    """The exporter's page at ``time`` (s): task totals since its start, queue lengths, workers."""

    time: float
    ended: float
    failed: float
    queues: Mapping[str, float]
    up: int
    workers: int
    broker_up: bool


def read_page(page: str, *, time: float) -> Reading:
    """Read an exposition page."""
    ended = failed = up = workers = 0.0
    broker_up = False
    queues: dict[str, float] = {}
    for sample in (sample for family in text_string_to_metric_families(page) for sample in family.samples):
        if sample.name in ENDED:
            ended += sample.value
        if sample.name == metrics.TASK_FAILED.name:
            failed += sample.value
        elif sample.name == metrics.QUEUE_LENGTH.name:
            queues[sample.labels["queue_name"]] = sample.value
        elif sample.name == metrics.WORKER_UP.name:
            up, workers = up + sample.value, workers + 1
        elif sample.name == metrics.BROKER_UP.name:
            broker_up = sample.value == 1
    return Reading(time, ended, failed, queues, int(up), int(workers), broker_up)


@dataclass(slots=True)
class Readings:
    """The last readings; rates are the differences of neighbours."""

    readings: deque[Reading] = field(default_factory=lambda: deque(maxlen=MAX_READINGS))

    def add(self, reading: Reading) -> None:
        """Add a reading; totals that fell come from an exporter that restarted, and begin a new history."""
        if self.readings and reading.ended < self.readings[-1].ended:
            self.readings.clear()
        self.readings.append(reading)

    @property
    def latest(self) -> Reading | None:
        """The newest reading."""
        return self.readings[-1] if self.readings else None

    def rates(self) -> list[float]:
        """Return the tasks that ended per second between one reading and the next."""
        steps = zip(self.readings, list(self.readings)[1:], strict=False)
        return [(new.ended - old.ended) / max(new.time - old.time, 0.001) for old, new in steps]

    def lengths(self, queue: str) -> list[float]:
        """Return the queue's length in each reading that has it."""
        return [reading.queues[queue] for reading in self.readings if queue in reading.queues]

    def failed_share(self) -> float | None:
        """Return the share of failed tasks among those that ended; ``None`` when none ended."""
        if len(self.readings) < 2:
            return None
        ended = self.readings[-1].ended - self.readings[0].ended
        return (self.readings[-1].failed - self.readings[0].failed) / ended if ended else None


class Watch:
    """Reads the exporter's page and Prometheus' alerts. A part that does not answer is not an error here."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._session = requests.Session()
        settings = PrometheusSettings(site.url("prometheus"), timeout=2.0, connect_timeout=1.0)
        self._prometheus = PrometheusClient(settings)

    def reading(self) -> Reading | None:
        """Return the exporter's metrics now, or ``None`` when it does not answer."""
        try:
            answer = self._session.get(f"{self._site.url('exporter')}/metrics", timeout=2)
        except requests.RequestException:
            return None
        return read_page(answer.text, time=time.monotonic()) if answer.ok else None

    def workers_up(self) -> int:
        """Return the number of workers that the exporter sees alive."""
        reading = self.reading()
        return reading.up if reading else 0

    def firing(self) -> tuple[str, ...]:
        """Return the names of the alerts that fire, critical ones first, without the one that always fires."""
        query = 'count by (alertname, severity) (ALERTS{alertstate="firing"})'
        try:
            samples = self._prometheus.instant(query).samples
        except PrometheusError:
            return ()
        ranked = sorted(samples, key=lambda sample: (sample.label("severity") != "critical", sample.label("alertname")))
        return tuple(dict.fromkeys(s.label("alertname") for s in ranked if s.label("alertname") != ALWAYS_FIRING))

    def slack_refuses(self) -> bool:
        """Return True if a message to Slack has failed."""
        return self._any('sum(alertmanager_notification_requests_failed_total{integration="slack"}) > 0')

    def scraped(self) -> bool:
        """Return True if Prometheus has scraped the exporter after it polled the queues: the control API needs both."""
        return self._any(
            'celerymeter_broker_up == 1 and on (instance) celerymeter_poll_success{collector="queues"} == 1'
        )

    def _any(self, query: str) -> bool:
        try:
            return len(self._prometheus.instant(query)) > 0
        except PrometheusError:
            return False

    def alerting(self) -> bool:
        """Return True if Prometheus has found its Alertmanager, which takes about 5 s."""
        try:
            answer = self._session.get(f"{self._site.url('prometheus')}/api/v1/alertmanagers", timeout=2)
            return bool(answer.json()["data"]["activeAlertmanagers"])
        except (requests.RequestException, ValueError, KeyError):
            return False

    def close(self) -> None:
        """Close the connections."""
        self._prometheus.close()
        self._session.close()


@dataclass(frozen=True, slots=True)
class DeliveredAlert:
    """One alert of one notification to ``receiver``."""

    receiver: str
    status: str
    alert: str
    severity: str
    summary: str

    def __str__(self) -> str:
        return f"{self.status} {self.alert} ({self.severity}) to {self.receiver}: {self.summary}"


def notifications(body: bytes) -> list[DeliveredAlert]:
    """Return the alerts in the body of a webhook (Alertmanager's version 4); raises `ValueError`."""
    message = json.loads(body)
    try:
        return [
            DeliveredAlert(
                receiver=str(message["receiver"]),
                status=str(alert["status"]),
                alert=alert["labels"]["alertname"],
                severity=alert["labels"].get("severity", "none"),
                summary=alert["annotations"].get("summary", alert["labels"]["alertname"]),
            )
            for alert in message["alerts"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a notification from Alertmanager: {error!r}") from error


class NotificationSink:
    """Receives Alertmanager's notifications until `take` is called; the oldest are dropped when it is not."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._received: deque[DeliveredAlert] = deque(maxlen=MAX_NOTIFICATIONS)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self._received.extend))

    def take(self) -> Iterator[DeliveredAlert]:
        """Yield what came since the last call."""
        while self._received:
            yield self._received.popleft()

    @contextmanager
    def serving(self) -> Iterator[NotificationSink]:
        """Serve in a thread, inside."""
        thread = threading.Thread(target=self._server.serve_forever, name="notification-sink", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _handler(receive: Callable[[list[DeliveredAlert]], object]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            try:
                receive(notifications(self.rfile.read(min(length, MAX_BODY))))
                self.send_response(200)
            except ValueError:
                self.send_response(400)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: the notifications themselves are shown."""

    return Handler
