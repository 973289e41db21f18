"""The shipped Prometheus and Alertmanager configurations, as they must read for a stack on other ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from celerymeter.demo.ports import Ports

Yaml: TypeAlias = "Mapping[str, Yaml] | list[Yaml] | str | int | float | bool | None"

PACE = "5s"
"""How often the demo scrapes and evaluates: a person is watching."""


def prometheus_config(shipped: Mapping[str, Yaml], *, folder: Path, ports: Ports) -> dict[str, Yaml]:
    """The shipped ``prometheus.yml`` of ``folder`` with its targets on the demo's ports."""
    moved = {9808: ports.exporter, 9809: ports.control_metrics, 9090: ports.prometheus, 9093: ports.alertmanager}
    config = {key: _retarget(value, moved) for key, value in shipped.items()}
    general = config.get("global")
    config["global"] = {
        **(general if isinstance(general, Mapping) else {}),
        "scrape_interval": PACE,
        "scrape_timeout": PACE,
        "evaluation_interval": PACE,
    }
    config["rule_files"] = _absolute(shipped.get("rule_files"), folder)
    return config


def _retarget(node: Yaml, moved: Mapping[int, int]) -> Yaml:
    """Every list called ``targets`` with its known ports replaced, and nothing else."""
    if isinstance(node, Mapping):
        return {
            key: [_moved(target, moved) for target in value]
            if key == "targets" and isinstance(value, list)
            else _retarget(value, moved)
            for key, value in node.items()
        }
    return [_retarget(item, moved) for item in node] if isinstance(node, list) else node


def _moved(target: Yaml, moved: Mapping[int, int]) -> Yaml:
    _, _, port = str(target).rpartition(":")
    return f"127.0.0.1:{moved[int(port)]}" if port.isdecimal() and int(port) in moved else target


def _absolute(paths: Yaml, folder: Path) -> list[Yaml]:
    return [str(folder / str(path)) for path in paths] if isinstance(paths, list) else []


def alertmanager_config(
    shipped: Mapping[str, Yaml], *, folder: Path, receiver: Callable[[str], list[Yaml]]
) -> dict[str, Yaml]:
    """The shipped routing and inhibition of ``folder``, with each receiver's webhooks given by ``receiver(name)``.

    Nothing that needs a secret or a mail server is left.
    """
    receivers = shipped.get("receivers")
    names = (
        [str(entry["name"]) for entry in receivers if isinstance(entry, Mapping)] if isinstance(receivers, list) else []
    )
    return {
        **{key: value for key, value in shipped.items() if key != "global"},
        "templates": _absolute(shipped.get("templates"), folder),
        "receivers": [{"name": name, "webhook_configs": receiver(name)} for name in names],
    }
