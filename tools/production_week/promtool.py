"""Evaluates the shipped rules over series of shops with promtool, in compressed time."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from tools.production_week.series import Series, Value
from tools.production_week.shop import BATCH, BURSTS, PERIODIC

from celerymeter.demo.servers import find_binary

RULES = sorted((Path(__file__).parents[2] / "alerts" / "rules").glob("*.yml"))
ORDER = ("celery-limits", "shop-limits", "celery-levels", "celery-effective", "celery-increases", "celery-pace")
"""The groups of rules that others build on, by the beginning of their names; alerts come last."""
OWN_LIMITS = (
    {"record": "celery:queue_backlog:limit", "expr": "+Inf", "labels": {"severity": "warning", "queue_name": BATCH}},
    {"record": "celery:queue_age:limit", "expr": 3 * 3600, "labels": {"severity": "warning", "queue_name": BATCH}},
    {"record": "celery:queue_late:limit", "expr": 3 * 3600, "labels": {"queue_name": BATCH}},
    {"record": "celery:queue_backlog:limit", "expr": 400, "labels": {"severity": "warning", "queue_name": BURSTS}},
    {"record": "celery:task_max_age:limit", "expr": 1500, "labels": {"severity": "warning", "name": PERIODIC}},
    {"record": "celery:success_objective:limit", "expr": 0.95, "labels": {"name": "shop.task0"}},
)
"""What this shop has added to thresholds.yml: batch and bursts may be long, a task must succeed every 25 minutes."""


@dataclass(frozen=True, slots=True)
class World:
    """The series of a cluster, and every alert above info that must fire in it, by severity."""

    cluster: str
    series: Series
    fires: Mapping[str, str]


def written(values: Sequence[Value]) -> str:
    """Return values as promtool reads them: runs of equal steps in one word."""
    words: list[str] = []
    at = 0
    while at < len(values):
        value = values[at]
        if value is None:
            gone = next((end for end in range(at, len(values)) if values[end] is not None), len(values))
            if words and at and values[at - 1] is not None:
                words.append("stale")
                at += 1
            if gone > at:
                words.append("_" if gone - at == 1 else f"_x{gone - at}")
            at = gone
            continue
        end = at + 1
        following = values[end] if end < len(values) else None
        step = following - value if following is not None else 0.0
        while end < len(values) and values[end] is not None and values[end] - values[end - 1] == step:  # type: ignore[operator]
            end += 1
        words.append(f"{value:.10g}" if end - at == 1 else f"{value:.10g}{step:+.10g}x{end - at - 1}")
        at = end
    return " ".join(words)


def _lines(world: World) -> Iterator[str]:
    for (name, labels), values in world.series.items():
        job = "celery-control" if name.startswith("celerymeter_control") else "celery"
        own = {"cluster": world.cluster, "job": job, "instance": f"{job}:9808", **dict(labels)}
        named = ",".join(f'{key}="{value}"' for key, value in own.items())
        yield f"      - {{series: '{name}{{{named}}}', values: '{written(values)}'}}\n"


def _expectation(world: World) -> dict[str, object]:
    """Every alert above info that fired at any time; with its subjects where there should be none."""
    end = len(next(iter(world.series.values()))) - 1
    fired = f'count_over_time(ALERTS{{cluster="{world.cluster}",alertstate="firing",severity!="info"}}[{end}m])'
    by_name = f"group by (alertname, severity) ({fired})"
    pairs = [(alert, severity) for alert, both in world.fires.items() for severity in both.split()]
    return {
        "expr": by_name if world.fires else f"sum by (alertname, severity, queue_name, name, hostname) ({fired})",
        "eval_time": f"{end}m",
        "exp_samples": [
            {"labels": f'{{alertname="{alert}",severity="{severity}"}}', "value": 1} for alert, severity in pairs
        ],
    }


def _rank(group: str) -> int:
    if group.startswith("celery-alerts"):
        return len(ORDER) + 1
    return next((rank for rank, first in enumerate(ORDER) if group.startswith(first)), len(ORDER))


def _head(own: Path) -> dict[str, object]:
    groups = [str(group["name"]) for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    groups.append("shop-limits")
    groups.sort(key=_rank)
    return {
        "rule_files": [str(path) for path in (*RULES, own)],
        "evaluation_interval": "1m",
        "group_eval_order": groups,
    }


MOST_TASKS = 160
"""In one run: promtool loads 10,000 samples for a query at most, and some rules look at each minute of an hour."""


def objections(worlds: Sequence[World], *, promtool: str = "") -> str:
    """Evaluate the shipped rules over all worlds; return what fired and must not, or must and did not."""
    tasks = max(sum(name == "celery_task_sent_total" for name, _ in world.series) for world in worlds)
    at_once = max(1, MOST_TASKS // tasks)
    runs = (worlds[start : start + at_once] for start in range(0, len(worlds), at_once))
    return "".join(_objections(some, promtool=promtool) for some in runs)


def _objections(worlds: Sequence[World], *, promtool: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        own, path = Path(folder) / "own.yml", Path(folder) / "week.yml"
        own.write_text(yaml.safe_dump({"groups": [{"name": "shop-limits", "rules": list(OWN_LIMITS)}]}))
        with path.open("w") as sink:
            sink.write(yaml.safe_dump(_head(own)))
            sink.write("tests:\n  - interval: 1m\n    input_series:\n")
            for world in worlds:
                sink.writelines(_lines(world))
            expectations = yaml.safe_dump([_expectation(world) for world in worlds], width=10_000)
            sink.write("    promql_expr_test:\n" + "".join(f"      {line}\n" for line in expectations.splitlines()))
        tool = promtool or find_binary("promtool")
        ran = subprocess.run([tool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr
