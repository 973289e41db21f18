"""Takes Alertmanager's notifications, so that the demo can show them to the person who watches."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

MAX_BODY = 1 << 20
KEPT = 1000


@dataclass(frozen=True, slots=True)
class Notification:
    """One alert of one notification, as it reached ``receiver``."""

    receiver: str
    status: str
    alert: str
    severity: str
    summary: str

    def __str__(self) -> str:
        return f"{self.status} {self.alert} ({self.severity}) to {self.receiver}: {self.summary}"


def notifications(body: bytes) -> tuple[Notification, ...]:
    """The alerts of a webhook body (Alertmanager's version 4); raises `ValueError` when it is none."""
    message = json.loads(body)
    try:
        receiver = str(message["receiver"])
        return tuple(_notification(receiver, alert) for alert in message["alerts"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no notification of Alertmanager: {error!r}") from error


def _notification(receiver: str, alert: Mapping[str, Mapping[str, str]]) -> Notification:
    labels, annotations = alert["labels"], alert["annotations"]
    name = labels["alertname"]
    return Notification(
        receiver=receiver,
        status=str(alert["status"]),
        alert=name,
        severity=labels.get("severity", "none"),
        summary=annotations.get("summary", name),
    )


class Sink:
    """An HTTP server on loopback that keeps what is posted until `take` asks; the oldest go when nobody asks."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._kept: deque[Notification] = deque(maxlen=KEPT)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="sink", daemon=True)

    def take(self) -> Iterator[Notification]:
        """What has come since the last call."""
        while self._kept:
            yield self._kept.popleft()

    def keep(self, body: bytes) -> None:
        """Keep the alerts of one webhook body; raises `ValueError`."""
        self._kept.extend(notifications(body))

    def _handler(sink) -> type[BaseHTTPRequestHandler]:  # noqa: N805  # ``self`` is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                try:
                    sink.keep(self.rfile.read(min(length, MAX_BODY)))
                    self.send_response(200)
                except ValueError:
                    self.send_response(400)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
                """Say nothing: the notifications themselves are shown."""

        return Handler

    def __enter__(self) -> Sink:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
