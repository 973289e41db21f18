"""A real Prometheus with some history of every scenario, ready in seconds.

History is written in advance (``promtool tsdb create-blocks-from openmetrics``), the present is scraped from a small
HTTP server in this process, and the shipped rules run on both. Each scenario is a cluster of its own.
"""

from __future__ import annotations

import math
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path

import requests
import yaml
from tests.dashboards import synthetic
from tests.dashboards.pages import Pages, Target, targets
from tests.dashboards.scenario_state import ScenarioState
from tests.dashboards.scenarios import Scenario
from tests.dashboards.series import SAMPLES
from tests.engines import binary, prometheus

from celerymeter import metrics as m
from celerymeter.demo.processes import wait_until

LONGEST_CHAIN = 3
"""Evaluations until what is scraped has reached the alerts: recorded series need others, which need others."""
RECENT, RECENT_STEP = 330.0, 15.0
"""Seconds of history with more samples, and between these: no rate of five minutes is more than 5 % too low."""
RULES = tuple((Path(__file__).parents[2] / "alerts" / "rules").glob("*.yml"))


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of history, seconds between its samples, and how often the present is scraped and the rules run.

    ``patient`` rules wait as they were written to; else every rule runs at once and every alert fires at once.
    """

    past: float = 1200.0
    step: float = 60.0
    interval: str = "4s"
    patient: bool = False


class Simulation:
    """Pages, history and a Prometheus with the rules; a context manager. Raises `ServerMissing` without that engine."""

    def __init__(
        self,
        folder: Path,
        scenarios: Iterable[Scenario],
        pace: Pace,
        *,
        engine: str = "prometheus",
        rules: Iterable[Path] = RULES,
    ) -> None:
        self._folder, self._pace, self._rules = folder, pace, rules
        self._promtool = binary(engine, "promtool")
        self._targets = tuple(targets(scenarios))
        self.reference_time = time.time()
        self._pages = Pages(self._targets, reference_time=self.reference_time)
        self._prometheus = prometheus(engine, folder, config=folder / "prometheus.yml")
        self.url = self._prometheus.url

    def __enter__(self) -> Simulation:
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # closes the pages, should anything fail: their socket would fail a later test
            stack.enter_context(self._pages)
            self._write_history()
            self._write_rules()
            self._write_configuration(self._pace.interval)
            stack.enter_context(self._prometheus).up()
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _write_history(self) -> None:
        source = self._folder / "history.txt"
        with source.open("w") as sink:
            sink.writelines(_history(self._targets, reference_time=self.reference_time, pace=self._pace))
        command = [self._promtool, "tsdb", "create-blocks-from", "openmetrics", "-q", str(source)]
        subprocess.run([*command, str(self._folder / "data")], check=True, capture_output=True)
        source.unlink()

    def _write_rules(self) -> None:
        rules = self._folder / "rules"
        rules.mkdir(exist_ok=True)
        for path in self._rules:
            (rules / path.name).write_text(path.read_text() if self._pace.patient else _impatient(path))

    def _write_configuration(self, interval: str) -> None:
        jobs = defaultdict(list)
        for target in self._targets:
            labels = {**target.labels, "__metrics_path__": target.path}
            job = labels.pop("job")
            jobs[job].append({"targets": [f"127.0.0.1:{self._pages.port}"], "labels": labels})
        every = {f"{what}_interval": interval for what in ("scrape", "evaluation")}
        config = {
            "global": {**every, "scrape_timeout": self._pace.interval},
            "rule_files": [str(self._folder / "rules" / "*.yml")],
            "scrape_configs": [{"job_name": job, "static_configs": configs} for job, configs in jobs.items()],
        }
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    @cached_property
    def settled(self) -> float:
        """A time at which every page was scraped as it should be and every alert had seen it: the time to ask about."""
        settled = self._settle()
        self._write_configuration("1h")  # what comes later is not asked about, and would cost much
        requests.post(f"{self.url}/-/reload", timeout=60).raise_for_status()
        return settled

    def _settle(self) -> float:
        begun = time.time()
        for _ in range(1 + LONGEST_CHAIN):
            wait_until(partial(self._evaluated, time.time()), timeout=180, what="every rule")
        settled = time.time()
        return settled if self._scraped(settled - begun) else self._settle()

    def _scraped(self, seconds: float) -> bool:
        """Return whether in the last ``seconds`` all pages answered that should, and the others were tried."""
        rightly_up = sum(target.control or not target.scenario.exporter_gone for target in self._targets)
        recent = f"[{math.ceil(seconds)}s]"
        answers = f"count(min_over_time(up{recent}) == 1) == {rightly_up}"
        query = f"count(max_over_time(up{recent})) == {len(self._targets)} and {answers}"
        reply = requests.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=30)
        return bool(reply.json()["data"]["result"])

    def _evaluated(self, since: float) -> bool:
        """Return whether every group of rules began and ended an evaluation after ``since``."""
        groups = requests.get(f"{self.url}/api/v1/rules", timeout=30).json()["data"]["groups"]
        return all(_timestamp(one["lastEvaluation"]) > since for one in groups)


def _timestamp(text: str) -> float:
    """Whole seconds of a time in an answer of Prometheus, which writes nanoseconds."""
    return datetime.fromisoformat(re.sub(r"\.\d+", "", text).replace("Z", "+00:00")).timestamp()


def _impatient(path: Path) -> str:
    """A rule file whose groups run at the common interval and whose alerts neither wait nor linger."""
    content = yaml.safe_load(path.read_text())
    for group in content["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            rule.pop("for", None)
            rule.pop("keep_firing_for", None)
    return yaml.safe_dump(content, sort_keys=False)


def _history(targets: tuple[Target, ...], *, reference_time: float, pace: Pace) -> Iterator[str]:
    """OpenMetrics lines of all that was scraped before, and of the recorded series that others look back on."""
    ago = {pace.past - index * pace.step for index in range(int(pace.past / pace.step) + 1)}
    ago |= {index * RECENT_STEP for index in range(int(min(pace.past, RECENT) / RECENT_STEP) + 1)}
    times = [reference_time - seconds for seconds in sorted(ago, reverse=True)]
    for target in targets:
        series: dict[str, list[str]] = defaultdict(list)
        outer = ",".join(f'{name}="{value}"' for name, value in target.labels.items())
        for now in times:
            for name, labels, value in _scraped(target, ScenarioState(target.scenario, reference_time, now)):
                series[f"{name}{{{labels[1:-1]}{',' if labels else ''}{outer}}}"].append(f"{value!r} {now:.3f}\n")
        for name, samples in series.items():
            yield from (f"{name} {sample}" for sample in samples)
    for scenario in {target.scenario.cluster: target.scenario for target in targets}.values():
        recorded: dict[str, list[str]] = defaultdict(list)
        for now in times:
            for name, value in _recorded(ScenarioState(scenario, reference_time, now)):
                recorded[name].append(f"{value!r} {now:.3f}\n")
        for name, samples in recorded.items():
            yield from (f"{name} {sample}" for sample in samples)
    yield "# EOF\n"


def _scraped(target: Target, at: ScenarioState) -> Iterator[synthetic.Sample]:
    gone = at.exporter_down and not target.control
    yield "up", "", float(not gone)
    if not gone:
        yield from synthetic.page(at, control=target.control)


def _recorded(at: ScenarioState) -> Iterator[tuple[str, float]]:
    cluster = at.scenario.cluster
    for task in at.scenario.tasks:
        name = f'{{cluster="{cluster}",name="{task.name}"}}'
        yield f"celery:task_ended:increase5m{name}", 300 * task.rate
        yield f"celery:task_failed:increase5m{name}", 300 * task.rate * task.failing
    if not at.exporter_down:
        for labels, waiting in SAMPLES[m.QUEUE_LENGTH](at):
            yield f'celery:queue_length:max{{cluster="{cluster}",queue_name="{labels[0]}"}}', waiting
