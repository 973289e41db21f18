"""One GET, and what it comes down to."""

from __future__ import annotations

import requests

from celerymeter.doctor.collect.failures import failure_of
from celerymeter.doctor.evidence import Failure

TIMEOUT = 10.0


def get(url: str) -> requests.Response | Failure:
    """The answer with status 200, else why there is none; user and password may stand in the URL."""
    try:
        answer = requests.get(url, timeout=TIMEOUT)
    except requests.RequestException as error:
        return failure_of(error)
    if answer.status_code in (401, 403):
        return Failure("password", f"HTTP {answer.status_code}")
    return answer if answer.ok else Failure("http", f"HTTP {answer.status_code}")
