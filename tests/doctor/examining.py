"""Runs the doctor as its users do."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from celerymeter.doctor.examine import run
from celerymeter.doctor.settings import DoctorSettings
from celerymeter.settings import BrokerSettings


def examine(
    url: str,
    *,
    watch: float = 1.0,
    options: Mapping[str, object] | None = None,
    celery_settings: Mapping[str, object] | None = None,
    **urls: Any,
) -> tuple[int, dict[str, str], str]:
    """Return the exit status, the problems by code, and the output."""
    out = io.StringIO()
    broker = BrokerSettings(url, transport_options=options or {}, celery_settings=celery_settings or {})
    settings = DoctorSettings(broker, watch=watch, format="json", **urls)
    status = run(settings, out=out, err=io.StringIO())
    report: dict[str, Any] = json.loads(out.getvalue())
    return status, {finding["code"]: finding["what"] for finding in report["findings"]}, out.getvalue()
