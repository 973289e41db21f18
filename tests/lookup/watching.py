"""Look-ups on a real cluster: every answer on the way to the expected one must be right at its time too."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import requests
from tests.control.access import bearer
from tests.control.serving import Control
from tests.revocation.cluster import TIMEOUT

from celerymeter.control.tokens import Role

ON_THE_WAY = ("queued", "reserved", "running")
"""Verdicts that a task may have before it ends."""


@dataclass
class Lookups:
    """Asks where tasks are, and remembers every answer."""

    control: Control
    answers: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def look(self, task_id: str) -> dict[str, Any]:
        """Return one answer."""
        response = requests.get(
            f"{self.control.url}/tasks/{quote(task_id, safe='')}", headers=bearer(Role.VIEWER), timeout=TIMEOUT
        )
        assert response.status_code == 200, response.text
        reply: dict[str, Any] = response.json()
        assert reply["task_id"] == task_id
        self.answers.append((task_id, reply))
        return reply

    def becomes(
        self, task_id: str, verdict: str, *, before: Collection[str] = (), timeout: float = TIMEOUT, **members: Any
    ) -> dict[str, Any]:
        """Look until the answer has this verdict and these members; until then it may only have those ``before``.

        `unknown` is never wrong; a message on its way from the broker to a worker is nowhere.
        """
        end = time.monotonic() + timeout
        while True:
            reply = self.look(task_id)
            if reply["verdict"] == verdict and all(reply[name] == value for name, value in members.items()):
                return reply
            allowed = {"unknown", verdict, *before}
            assert reply["verdict"] in allowed, f"{reply['verdict']}: {reply['sentence']['en']}"
            assert time.monotonic() < end, reply
            time.sleep(0.3)


def outcomes(reply: dict[str, Any]) -> list[tuple[str, str]]:
    """Return worker and outcome of each run."""
    return [(run["worker"], run["outcome"]) for run in reply["runs"]]
