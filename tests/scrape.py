"""An exporter process under test, and its page as numbers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import requests
from prometheus_client.parser import text_string_to_metric_families
from tests.forked import ForkedProcess

from celerymeter.demo.processes import free_port
from celerymeter.exposition.page import Page


def text_of(page: Page, now: float) -> str:
    """The page at ``now`` (UTC seconds), as a scrape gets it."""
    return b"".join(page.render(now)).decode()


class Scrape:
    """One page; samples by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def get(self, name: str, /, **labels: str) -> float | None:
        """The value of exactly this series; ``None`` when it is absent."""
        return self._samples.get((name, frozenset(labels.items())))

    def sum(self, name: str, /, **labels: str) -> float:
        """The sum over all series of a name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self._samples.items() if found == name and wanted <= has)

    def by(self, name: str, /, *labels: str) -> dict[tuple[str, ...], float]:
        """Sums by the values of some labels; zeros left out."""
        totals: dict[tuple[str, ...], float] = {}
        for (found, has), value in self._samples.items():
            if found == name and value:
                key = tuple(dict(has).get(label, "") for label in labels)
                totals[key] = totals.get(key, 0) + value
        return totals

    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every series that must never fall: counters, and the counts and sums of histograms."""
        rising = ("_total", "_count", "_sum", "_bucket")
        return {key: value for key, value in self._samples.items() if key[0].endswith(rising)}

    def values(self, label: str) -> set[str]:
        """Every value that a label has anywhere on the page."""
        return {dict(has)[label] for _, has in self._samples if label in dict(has)}


class ExporterProcess(ForkedProcess):
    """``celerymeter exporter`` on a free port."""

    def __init__(self, folder: Path, broker_url: str, *, options: Sequence[str] = (), name: str = "exporter") -> None:
        self.port = free_port()
        argv = [sys.executable, "-m", "celerymeter", "exporter", "--broker-url", broker_url]
        argv += ["--listen", f"127.0.0.1:{self.port}", "--poll-interval", "1s", "--inspect-interval", "1s", *options]
        super().__init__(name, argv, log=folder / f"{name}.log")

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    def up(self, path: str = "/-/ready") -> ExporterProcess:
        """Start, and wait until it answers ``path`` with 200."""
        self.start(ready=lambda: self.code(path) == 200)
        return self

    def code(self, path: str) -> int:
        """The status code of a GET, 0 when nothing answers."""
        try:
            return requests.get(self.url + path, timeout=30).status_code
        except requests.RequestException:
            return 0

    def scrape(self) -> Scrape:
        """The page, now."""
        answer = requests.get(f"{self.url}/metrics", timeout=30)
        answer.raise_for_status()
        return Scrape(answer.text)

    def value(self, name: str, /, **labels: str) -> float | None:
        """One series of a fresh page."""
        return self.scrape().get(name, **labels)
