"""Our own rules record the same with ``--compat`` as without: nothing counts twice, nothing is lost."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.compat.history import STEP, Compat, canned
from tests.engines import Canned
from tests.rules.bundle import RULES, recordings

from celerymeter.demo.servers import find_binary

BUSY = {
    "celery:task_failed:increase5m": "pay",
    "celery:task_exceptions:increase5m": "pay",
    "celery:task_errors:ratio5m": "pay",
    "celery:task_ended:increase5m": "mail",
    "celery:task_runtime:p95": "mail",
}
"""Recorded series of which a task must have samples, so that nothing is not equal to nothing."""
MOMENTS = (4, 9, 11, 16)
"""Minutes: young, steady, while a class of exceptions is new, and when it was new within the window."""
LAST = MOMENTS[-1]


def given(series: Canned, start: float) -> dict[str, str]:
    """A series as promtool takes it: one word a step, ``_`` where it has none, and time begins at 0."""
    labels = ",".join(f"{name}={json.dumps(value)}" for name, value in series.labels.items())
    zero = start if series.name.endswith("_timestamp_seconds") or "start_time" in series.name else 0.0
    at = {round((time - start) / STEP): value - zero for time, value in series.samples}
    words = [repr(at[step]) if step in at else "_" for step in range(60 // STEP * LAST + 1)]
    return {"series": f"{series.name}{{{labels}}}", "values": " ".join(words)}


def differing(name: str) -> str:
    """Samples of a recorded series that only one of the two clusters has, or that differ."""
    plain, both = (f'{name}{{cluster="{cluster}"}}' for cluster in ("plain", "compat"))
    return (
        f"abs({both} - ignoring (cluster, instance) {plain}) > 1e-9"
        f" or {both} unless ignoring (cluster, instance) {plain} or {plain} unless ignoring (cluster, instance) {both}"
    )


@pytest.mark.integration
def test_the_rules_record_the_same(tmp_path: Path) -> None:
    """Every recorded series of both clusters, at five moments, by promtool and the shipped files."""
    start = canned(None)[0].samples[0][0]
    modes: dict[str, Compat] = {"plain": None, "compat": "celery-exporter"}
    series = [
        given(one, start)
        for cluster, compat in modes.items()
        for one in canned(compat, job="celery", instance=f"{cluster}:9808", cluster=cluster)
    ]
    names = sorted({rule.name for rule in recordings() if not rule.name.endswith(":limit")})
    equal = [
        {"expr": differing(name), "eval_time": f"{minute}m", "exp_samples": []} for name in names for minute in MOMENTS
    ]
    there = [
        {
            "expr": f'count(count by (cluster) ({name}{{name="{task}"}}))',
            "eval_time": f"{LAST}m",
            "exp_samples": [{"value": 2}],
        }
        for name, task in BUSY.items()
    ]
    tests = [{"interval": f"{STEP}s", "input_series": series, "promql_expr_test": [*equal, *there]}]
    path = tmp_path / "equal.json"
    path.write_text(json.dumps({"rule_files": list(map(str, RULES)), "evaluation_interval": "15s", "tests": tests}))
    ran = subprocess.run(
        [find_binary("promtool"), "test", "rules", str(path)], capture_output=True, text=True, check=False, timeout=280
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4000:]
