"""The control API's own health."""

from __future__ import annotations

import requests

from celerymeter.doctor.collect.failures import failure_of
from celerymeter.doctor.collect.http import TIMEOUT
from celerymeter.doctor.evidence import ControlEvidence, Failure
from celerymeter.urls import without_password

PATHS = ("/system/health", "/celery-admin/system/health")
"""Below a URL with the base path, and below one without it."""


def look(url: str) -> ControlEvidence:
    """Ask for its health; 503 is an answer as well."""
    shown = without_password(url)
    failure = Failure("http", "no health page below this URL")
    for path in PATHS:
        try:
            answer = requests.get(url.rstrip("/") + path, timeout=TIMEOUT)
        except requests.RequestException as error:
            return ControlEvidence(shown, failure=failure_of(error))
        if (found := _evidence(shown, answer)) is not None:
            return found
        if answer.status_code != requests.codes.not_found:
            failure = Failure("http", f"HTTP {answer.status_code}")
    return ControlEvidence(shown, failure=failure)


def _evidence(url: str, answer: requests.Response) -> ControlEvidence | None:
    try:
        told = answer.json()
        checks = told.get("checks") or {}
        failing = tuple(name for name, state in checks.items() if state not in ("ok", "healthy"))
        return ControlEvidence(url, status=str(told["status"]), failing=failing) if "timestamp" in told else None
    except (ValueError, LookupError, AttributeError):
        return None
