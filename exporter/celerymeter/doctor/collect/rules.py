"""What Prometheus says of its rules, and of the Alertmanagers that it tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from celerymeter.doctor.collect.http import get
from celerymeter.doctor.evidence import Alertmanager, Failure, RulesEvidence
from celerymeter.urls import without_password

LIMITS = 'count(celery:queue_backlog:limit{cluster="", queue_name=""})'
_PUSH_PATH = re.compile(r"/api/v\d/alerts$")
_ERRORS = re.compile(r'^prometheus_notifications_errors_total\{.*alertmanager="([^"]+)".*\} (\S+)$', re.MULTILINE)


def loaded(url: str, *, limits: bool) -> RulesEvidence | None:
    """The rules; ``None`` for engines that leave them to others (VictoriaMetrics, Thanos, Mimir)."""
    data = _data(url, "rules")
    if data is None:
        return None
    rules = list(_rules(data))
    failing = {str(rule["name"]): str(rule.get("lastError", "")) for rule in rules if rule.get("health") == "err"}
    return RulesEvidence(frozenset(str(rule["name"]) for rule in rules), failing, limits)


def _rules(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in data.get("groups") or ():
        yield from group.get("rules") or ()


def alertmanagers(url: str) -> tuple[Alertmanager, ...] | None:
    """The Alertmanagers that it has found, each asked from here; ``None`` for engines that do not tell."""
    data = _data(url, "alertmanagers")
    if data is None:
        return None
    page = get(f"{url.rstrip('/')}/metrics")
    errors = {} if isinstance(page, Failure) else _undelivered(page.text)
    return tuple(_alertmanager(str(one["url"]), errors) for one in data.get("activeAlertmanagers") or ())


def _alertmanager(push: str, errors: dict[str, int]) -> Alertmanager:
    base = _PUSH_PATH.sub("", push)
    answer = get(f"{base}/-/ready")
    return Alertmanager(
        without_password(base), answer if isinstance(answer, Failure) else None, errors.get(_place(push), 0)
    )


def _undelivered(page: str) -> dict[str, int]:
    """Notifications that failed, by Alertmanager."""
    return {_place(url): int(float(count)) for url, count in _ERRORS.findall(page)}


def _place(url: str) -> str:
    """Host, port and path: what a URL has in common wherever Prometheus writes it."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}{_PUSH_PATH.sub('', parts.path)}"


def _data(url: str, what: str) -> dict[str, Any] | None:
    answer = get(f"{url.rstrip('/')}/api/v1/{what}")
    if isinstance(answer, Failure):
        return None
    try:
        data = answer.json()["data"]
    except (ValueError, LookupError, TypeError):
        return None
    return data if isinstance(data, dict) else None
