"""The notifications of Alertmanager."""

from __future__ import annotations

import pytest
import requests

from celerymeter.demo.processes import free_port
from celerymeter.demo.watch import DeliveredAlert, NotificationSink

ALERT = {
    "status": "firing",
    "labels": {"alertname": "CeleryNoWorkers", "severity": "critical"},
    "annotations": {"summary": "No worker is up"},
}


def test_a_notification_is_taken_once() -> None:
    """`take` yields what was posted, once."""
    with NotificationSink(free_port()).serving() as sink:
        answer = requests.post(f"{sink.url}/pager", json={"receiver": "pager", "alerts": [ALERT]}, timeout=30)
        assert answer.status_code == 200
        assert list(sink.take()) == [
            DeliveredAlert("pager", "firing", "CeleryNoWorkers", "critical", "No worker is up")
        ]
        assert list(sink.take()) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"receiver": "x", "alerts": [{"labels": {}}]}'])
def test_anything_else_is_refused(body: bytes) -> None:
    """Any other body gets 400 and yields nothing."""
    with NotificationSink(free_port()).serving() as sink:
        assert requests.post(sink.url, data=body, timeout=30).status_code == 400
        assert list(sink.take()) == []
