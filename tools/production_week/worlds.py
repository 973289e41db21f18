"""Shops, and what their alerts must be."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.production_week.evaluation import Evaluation, Rule, needed, rules_of, shipped
from tools.production_week.history import History, Labels
from tools.production_week.incidents import Incident
from tools.production_week.series import Single, Value, each_series, series_of
from tools.production_week.shop import BATCH, BURSTS, PERIODIC, Shop

OWN_LIMITS = (
    {"record": "celery:queue_backlog:limit", "expr": "+Inf", "labels": {"severity": "warning", "queue_name": BATCH}},
    {"record": "celery:queue_age:limit", "expr": 3 * 3600, "labels": {"severity": "warning", "queue_name": BATCH}},
    {"record": "celery:queue_late:limit", "expr": 3 * 3600, "labels": {"queue_name": BATCH}},
    {"record": "celery:queue_backlog:limit", "expr": 400, "labels": {"severity": "warning", "queue_name": BURSTS}},
    {"record": "celery:task_max_age:limit", "expr": 1500, "labels": {"severity": "warning", "name": PERIODIC}},
    {"record": "celery:success_objective:limit", "expr": 0.95, "labels": {"name": "shop.task0"}},
)
"""Lines of this shop in thresholds.yml: batch and bursts may be long, a task must succeed every 25 minutes."""


@dataclass(frozen=True, slots=True)
class World:
    """A cluster with its series, and every alert above info that must fire in it, by severity."""

    cluster: str
    minutes: int
    series: Iterable[Single]
    fires: Mapping[str, str]

    def labelled(self) -> Iterator[tuple[Labels, Sequence[Value]]]:
        """Yield the series as Prometheus would scrape them."""
        for name, labels, values in self.series:
            job = "celery-control" if name.startswith("celerymeter_control") else "celery"
            own = {"__name__": name, "cluster": self.cluster, "job": job, "instance": f"{job}:9808", **labels}
            yield tuple(sorted(own.items())), values

    def objections(self, fired: Mapping[Labels, Sequence[int]]) -> Iterator[str]:
        """Yield what fired and must not, and what must and did not; info apart."""
        must = {(alert, severity) for alert, both in self.fires.items() for severity in both.split()}
        did = set()
        for labels, minutes in fired.items():
            own = dict(labels)
            alert = (own["alertname"], own["severity"])
            if own.get("cluster") != self.cluster or own["severity"] == "info":
                continue
            did.add(alert)
            if alert not in must:
                named = ", ".join(f'{name}="{value}"' for name, value in labels if name not in ("cluster", "area"))
                yield f"{named} fired for {len(minutes)} min from minute {minutes[0]} on"
        for name, severity in sorted(must - did):
            yield f"{name} ({severity}) did not fire"


def healthy(shop: Shop, *, seed: int = 1) -> World:
    """Return the shop with nothing wrong."""
    return World("shop", len(shop.minutes), each_series(shop, seed), {})


def with_incident(shop: Shop, incident: Incident) -> World:
    """Return the shop with an incident, from after a third of its hours until half an hour before their end."""
    minutes = len(shop.minutes)
    during = range(minutes // 3 + 15, minutes - 30)
    if not during:
        raise ValueError(f"{minutes} minutes are too few for an incident")

    def series() -> Iterator[Single]:
        changed = series_of(shop)
        incident.change(changed, during)
        for (name, labels), values in changed.items():
            yield name, dict(labels), values

    return World(incident.name.replace(" ", "-"), minutes, series(), incident.fires)


def rules() -> list[Rule]:
    """Return the shipped alerts with the rules that they need, and the shop's own thresholds."""
    return needed([*shipped(), *rules_of([{"name": "shop-limits", "rules": OWN_LIMITS}])])


def objections(worlds: Sequence[World]) -> str:
    """Evaluate the shipped rules over all worlds; return what fired and must not, or must and did not."""
    with tempfile.TemporaryDirectory() as folder, History(Path(folder)) as history:
        for world in worlds:
            history.write(world.labelled())
        evaluation = Evaluation(history, rules())
        evaluation.run(0, max(world.minutes for world in worlds))
        return "".join(f"{world.cluster}: {line}\n" for world in worlds for line in world.objections(evaluation.fired))
