"""A broadcast of a thousand ids, and workers that go on with their work meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.apps import worker_app
from tests.revocation.distance import far_away
from tests.revocation.releases import EVERYWHERE
from tests.revocation.stage import PATIENCE, Stage, staged

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DELAY = 0.001
"""Seconds that each word to the result backend takes: a revoke costs a worker up to three for each id."""
IDS = [f"id-{number}" for number in range(1000)]


@pytest.fixture(params=EVERYWHERE)
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The API, and two workers that are far from their results."""
    with staged(tmp_path, request.param) as stage:
        backend_url = stage.stack.enter_context(far_away(stage.backend_url, delay=DELAY))
        for name in ("a@t", "b@t"):
            stage.worker(name, env={worker_app.BACKEND: backend_url})
        stage.becomes(stage.revoke("before"), "flagged_unknown")
        yield stage


def ping(stage: Stage) -> float:
    """Seconds until both workers have answered; what came before is done by then."""
    asked = time.monotonic()
    assert len(stage.app.control.broadcast("ping", reply=True, limit=2, timeout=PATIENCE)) == 2
    return time.monotonic() - asked


def test_no_worker_is_held_for_a_second(stage: Stage) -> None:
    """Pings are answered all the time until each id is flagged, also by the follow-up."""
    longest = [ping(stage)]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(stage.revoke, *IDS)
        while not answer.done():
            longest.append(ping(stage))
    batch, count = answer.result(), len(longest)
    while stage.follow(batch["batch_id"])["summary"] != "1000 flagged_unknown":
        longest.append(ping(stage))
    assert count > 2
    assert max(longest) < 1.0
