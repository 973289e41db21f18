"""Real beats for tests, as child processes."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.apps import beat_app, worker_app
from tests.forked import ForkedProcess
from tests.scrape import ExporterProcess, Scrape
from tests.workers import ROOT

from celerymeter.demo.processes import Process, wait_until

BEAT = f"celerybeat@{socket.gethostname()}"
TASK = "tests.add"
DATABASE_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"


def start_beat(
    broker_url: str,
    folder: Path,
    entries: Mapping[str, float | str],
    *,
    name: str = "beat",
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    app: str = "tests.apps.beat_app",
) -> Process:
    """Start ``celery beat`` with these entries: seconds or a line of a crontab by name."""
    argv = [sys.executable, "-m", "celery", "-A", app, "beat", "--loglevel", "info"]
    argv += ["--schedule", str(folder / f"{name}.schedule"), *options]
    beat = ForkedProcess(name, argv, log=folder / f"{name}.log", env=environment(broker_url, entries, env), cwd=ROOT)
    return beat.start(ready=lambda: "beat: Starting" in beat.tail(100))


def environment(
    broker_url: str, entries: Mapping[str, float | str], env: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment that the application reads its settings from."""
    settings = {worker_app.BROKER: broker_url, beat_app.SCHEDULE: json.dumps(dict(entries)), "PYTHONUNBUFFERED": "1"}
    return {**settings, **(env or {})}


def until(exporter: ExporterProcess, holds: Callable[[Scrape], object], what: str) -> Scrape:
    """Wait until a page is as it should be, and return it."""
    pages: list[Scrape] = []

    def scraped() -> object:
        pages[:] = [exporter.scrape()]
        return holds(pages[0])

    wait_until(scraped, interval=0.2, what=what)
    return pages[0]
