"""The shipped rules, run so many times faster: what takes minutes for people takes seconds for a test.

Every duration of a rule is divided: ``for``, ``keep_firing_for``, ranges, subquery steps, offsets, group intervals, the
seconds that something has been up (``time() - start > 120``), and ``/ 300``, which in our rules always is five minutes.
The ages in `celery:workers_joined:count` and `celery:workers_restarted:count` are left alone: a test's workers start
seconds after their exporter, and these, divided, would make all of them new ones.
A ``for`` is not divided below `LEAST_FOR`: heartbeats come no oftener than they do. Limits are left alone: a test sets
those that it needs by lines of its own, as an operator would.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from tests.rules.bundle import RULES, seconds

LEAST_FOR = 8.0
"""Seconds: four heartbeats, so that neither a new exporter nor a machine that is late makes an alert."""
_LEAST = {"for": LEAST_FOR, "keep_firing_for": 1.0}
_DURATION = re.compile(r"(?<=\[)\d+[smhd](?=[:\]])|(?<=:)\d+[smhd](?=\])|(?<=offset )\d+[smhd]")
_SECONDS = re.compile(r"(?<=/ )300\b|(?<=start_time_seconds [<>] )\d+")


def quickened(expr: str, factor: float) -> str:
    """An expression with every duration divided.

    >>> quickened("rate(x[5m]) / 300 < sum_over_time(y[1h:5m]) + z offset 5m", 10)
    'rate(x[30s]) / 30 < sum_over_time(y[6m0s:30s]) + z offset 30s'
    """
    shorter = _DURATION.sub(lambda found: _divided(found.group(), factor), expr)
    return _SECONDS.sub(lambda found: f"{int(found.group()) / factor:g}", shorter)


def _divided(duration: str, factor: float, *, least: float = 1.0) -> str:
    milliseconds = round(1000 * max(least, seconds(duration) / factor))
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{minutes}m{rest // 1000}s" if minutes else f"{rest // 1000}s"
    return text if rest % 1000 == 0 else f"{milliseconds}ms"


def write_rules(folder: Path, *, factor: float, overrides: Iterable[Mapping[str, object]]) -> None:
    """All shipped rule files in ``folder``, quickened, and one file of overrides beside them."""
    folder.mkdir(parents=True)
    for path in RULES:
        content = yaml.safe_load(path.read_text())
        for group in content["groups"]:
            if "interval" in group:
                group["interval"] = _divided(group["interval"], factor)
            for rule in group["rules"]:
                rule["expr"] = quickened(str(rule["expr"]), factor)
                if "annotations" in rule:  # their queries look back too
                    rule["annotations"] = {name: quickened(text, factor) for name, text in rule["annotations"].items()}
                for key in rule.keys() & _LEAST.keys():
                    rule[key] = _divided(rule[key], factor, least=_LEAST[key])
        (folder / path.name).write_text(yaml.safe_dump(content, allow_unicode=True))
    own = {"groups": [{"name": "my-limits", "rules": [dict(line) for line in overrides]}]}
    (folder / "overrides.yml").write_text(yaml.safe_dump(own))
