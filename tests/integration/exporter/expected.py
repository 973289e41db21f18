"""The counts that a workload must give on the page."""

from __future__ import annotations

from collections import Counter

from tests.scrape import ExporterProcess, Scrape

from celerymeter.demo.processes import wait_until

Key = tuple[str, ...]


class Expected:
    """The counts that a workload must give, by (name, queue)."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[Key]] = {
            step: Counter() for step in ("sent", "received", "started", "succeeded", "failed", "retried")
        }

    def add(self, name: str, queue: str, *, times: int = 1, **steps: int) -> None:
        """``times`` tasks, each with so many of every step; sent, received and started follow the runs."""
        runs = steps.get("runs", 1)
        for step in ("sent", "received", "started"):
            self.counts[step][name, queue] += times * steps.get(step, runs)
        for step in ("succeeded", "failed", "retried"):
            self.counts[step][name, queue] += times * steps.get(step, 0)

    def missing(self, page: Scrape) -> dict[str, tuple[dict[Key, float], dict[Key, float]]]:
        """The steps whose counts differ: what was found, and what was expected."""
        found = {step: page.by(f"celery_task_{step}_total", "name", "queue_name") for step in self.counts}
        wanted = {step: {key: float(n) for key, n in counts.items() if n} for step, counts in self.counts.items()}
        return {step: (found[step], wanted[step]) for step in wanted if found[step] != wanted[step]}


def settle(exporter: ExporterProcess, expected: Expected) -> Scrape:
    """Wait until all counts are as expected; on time-out say what differs."""
    try:
        wait_until(lambda: not expected.missing(exporter.scrape()), interval=0.5)
    except TimeoutError:
        if missing := expected.missing(exporter.scrape()):
            raise AssertionError(f"found and expected differ: {missing}") from None
    return exporter.scrape()
