"""Real beats for tests, as child processes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.apps import beat_app, worker_app
from tests.workers import ROOT

from celerymeter.demo.processes import Process

TASK = "tests.add"


def start_beat(
    broker_url: str,
    folder: Path,
    entries: Mapping[str, float],
    *,
    name: str = "beat",
    options: Sequence[str] = (),
    wrapper: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start ``celery beat`` with these entries, seconds by name; ``wrapper`` is a command that runs it."""
    argv = [*wrapper, sys.executable, "-m", "celery", "-A", "tests.apps.beat_app", "beat", "--loglevel", "info"]
    argv += ["--schedule", str(folder / f"{name}.schedule"), *options]
    beat = Process(name, argv, log=folder / f"{name}.log", env=environment(broker_url, entries, env), cwd=ROOT)
    return beat.start(ready=lambda: "beat: Starting" in beat.tail(100), timeout=60)


def environment(broker_url: str, entries: Mapping[str, float], env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment that the application reads its settings from."""
    settings = {worker_app.BROKER: broker_url, beat_app.SCHEDULE: json.dumps(dict(entries)), "PYTHONUNBUFFERED": "1"}
    return {**settings, **(env or {})}
