"""Comparison of the exporter's page with what workers really did, by their own files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.scrape import Scrape

from celerymeter.model import UNKNOWN

FOLDER = "CELERYMETER_SOAK_TRUTH"
"""The environment variable that tells a worker where to write."""
Key = tuple[str, str, str]
"""Queue, name of the task, step. A worker's queue is called as the worker is, before the ``@``."""

FAMILIES = {
    "received": ("celery_task_received_total", {}),
    "started": ("celery_task_started_total", {}),
    "succeeded": ("celery_task_succeeded_total", {}),
    "failed": ("celery_task_failed_total", {}),
    "retried": ("celery_task_retried_total", {}),
    "ignored": ("celery_task_ended_without_result_total", {}),
    "expired": ("celery_task_revoked_total", {"reason": "expired"}),
    "revoked": ("celery_task_revoked_total", {"reason": "revoked"}),
    "succeeded, in the histogram": ("celery_task_runtime_seconds_count", {}),
    "failed, in the histogram": ("celery_task_failed_runtime_seconds_count", {}),
    "started, in the histogram": ("celery_task_wait_seconds_count", {}),
}
"""The metric of each step on the page."""
DELAYS = {"ignored": 10.0}
"""Seconds until a worker knows of a step; that a run ended without a result shows by its absence."""
HISTOGRAMS = {step.partition(",")[0]: step for step in FAMILIES if "," in step}


class Truth:
    """Reads the files of a folder, as `tools.soak.app` writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._counts: Counter[Key] = Counter()
        self._read: Counter[Path] = Counter()

    def counts(self) -> Counter[Key]:
        """Return what all workers have done so far."""
        for path in self.folder.iterdir():
            with path.open("rb") as file:
                file.seek(self._read[path])
                text = file.read()
            complete = text[: text.rfind(b"\n") + 1]
            self._read[path] += len(complete)
            self._counts.update(key for _, key in _steps(path, complete))
        return Counter(self._counts)

    def since(self, pid: int, at: float) -> Counter[Key]:
        """Return what one worker process has done since then."""
        paths = self.folder.glob(f"*-{pid}")
        steps = (step for path in paths for step in _steps(path, path.read_bytes()))
        return Counter(key for when, key in steps if when >= at - DELAYS.get(key[2], 0.0))


def _steps(path: Path, text: bytes) -> Iterator[tuple[float, Key]]:
    queue = path.name.partition("@")[0]
    for line in text.decode().splitlines():
        at, step, name = line.split()
        yield float(at), (queue, name, step)
        if step in HISTOGRAMS:
            yield float(at), (queue, name, HISTOGRAMS[step])


def shown(page: Scrape) -> Counter[Key]:
    """Return the same from the exporter's page."""
    found: Counter[Key] = Counter()
    for step, (family, labels) in FAMILIES.items():
        for (name, queue, *values), count in page.by(family, "name", "queue_name", *labels).items():
            if values == list(labels.values()):
                found[queue, name, step] += int(count)
    for (name, queue, exception), count in page.by(
        "celery_task_exceptions_total", "name", "queue_name", "exception"
    ).items():
        found[queue, name, f"raised:{exception}"] += int(count)
    return found


class Judge:
    """Compares; what a killed worker did in its last seconds may be lost, once, and is known from then on."""

    def __init__(self, truth: Truth, *, exact: Collection[str], partial: Collection[str]) -> None:
        """Queues in ``exact`` must be counted to the task; of those in ``partial`` nothing may be counted twice."""
        self.lost: Counter[Key] = Counter()
        self.checks = 0
        self._truth = truth
        self._exact = exact
        self._partial = partial
        self._doubtful: Counter[Key] = Counter()

    def killed(self, pid: int, since: float) -> None:
        """A worker process is gone: its last steps may not have been published."""
        self._doubtful += self._truth.since(pid, since)

    def problems(self, page: Scrape) -> list[str]:
        """Return what the page has wrong; all tasks have ended."""
        real, found = self._truth.counts(), shown(page)
        problems = []
        for key in sorted({*real, *found}):
            most = real[key] - self.lost[key]
            least = most - self._doubtful[key] if key[0] in self._exact else 0
            if key[0] not in self._exact and (key[1] == UNKNOWN or key[2] == "ignored"):
                continue  # without its events a run has no name, and one whose end is late seems to have none
            if key[0] in {*self._exact, *self._partial} and not least <= found[key] <= most:
                problems.append(f"{' '.join(key)}: {found[key]} on the page, {least} to {most} in truth")
        return problems

    def accept(self, page: Scrape) -> None:
        """Take the page as right: what a killed worker had not published is lost, and nothing else."""
        real, found = self._truth.counts(), shown(page)
        self.lost = Counter({key: real[key] - found[key] for key in real if key[0] in self._exact})
        self._doubtful.clear()
        self.checks += 1

    @property
    def compared(self) -> str:
        """A sentence about what was compared."""
        steps = sum(count for key, count in self._truth.counts().items() if key[0] in self._exact)
        lost = sum(self.lost_runs(queue) for queue in self._exact)
        return f"{steps:,} steps compared {self.checks} times, {lost} runs lost with killed workers"

    def lost_runs(self, queue: str) -> int:
        """Return how many runs of a queue were never published."""
        return sum(count for (of, _, step), count in self.lost.items() if (of, step) == (queue, "started"))
