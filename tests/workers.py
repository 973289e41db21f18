"""Real Celery workers for tests, as child processes that are online when `start_worker` returns."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.apps import worker_app
from tests.forked import ForkedProcess

from celerymeter.demo.processes import Process

ROOT = Path(__file__).parents[1]


def start_worker(
    broker_url: str,
    folder: Path,
    *,
    hostname: str = "w1@test",
    pool: str = "prefork",
    concurrency: int | None = 1,
    queues: Sequence[str] = ("celery",),
    events: bool = True,
    aggregate: Mapping[str, object] | None = None,
    mingle: bool = False,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    transport_options: Mapping[str, object] | None = None,
    app: str = "tests.apps.worker_app",
) -> Process:
    """Start ``celery worker`` and wait until it consumes; ``options`` are further words of its command line.

    ``aggregate`` makes it aggregate, with these options of `celerymeter.aggregate.install`, and send no task events.
    """
    log = folder / f"worker-{hostname}-{len(list(folder.glob('worker-*')))}.log"
    argv = [sys.executable, "-m", "celery", "-A", app, "worker"]
    argv += ["--hostname", hostname, "--pool", pool, "--queues", ",".join(queues), "--loglevel", "info"]
    argv += ["--concurrency", str(concurrency)] if concurrency else []
    argv += ["--task-events"] if events and aggregate is None else []
    argv += [] if mingle else ["--without-mingle"]  # it waits a whole second
    settings = {
        worker_app.BROKER: broker_url,
        worker_app.OPTIONS: json.dumps(dict(transport_options or {})),
        "PYTHONUNBUFFERED": "1",
    }
    if aggregate is not None:
        settings[worker_app.AGGREGATE] = json.dumps(dict(aggregate))
    worker = ForkedProcess(hostname, [*argv, *options], log=log, env={**settings, **(env or {})}, cwd=ROOT)
    return worker.start(ready=lambda: f"{hostname} ready." in worker.tail(1000))


def pool_process(worker: Process) -> int:
    """The pid of a worker's only pool process."""
    return int(Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()[0])
