"""The shipped Prometheus and Alertmanager configurations, as they must read for a stack on other ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from celerymeter.demo.ports import Ports

Yaml: TypeAlias = "Mapping[str, Yaml] | list[Yaml] | str | int | float | bool | None"

CONTROL_WEBHOOK = "/alerts/webhook"
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


@dataclass(frozen=True, slots=True)
class Receivers:
    """Where notifications go in the demo: to the control API with a token, and everything else to the sink.

    What is meant for Slack goes there too when there is a file with a webhook's URL.
    """

    control_url: str
    token_file: Path
    sink_url: str
    slack_url_file: Path | None = None


def alertmanager_config(shipped: Mapping[str, Yaml], *, folder: Path, receivers: Receivers) -> dict[str, Yaml]:
    """The shipped routing, inhibition and templates of ``folder``; no secret is in it, and no mail server is needed."""
    found = shipped.get("receivers")
    return {
        **{key: value for key, value in shipped.items() if key != "global"},
        "templates": _absolute(shipped.get("templates"), folder),
        "receivers": [_receiver(entry, receivers) for entry in found if isinstance(entry, Mapping)]
        if isinstance(found, list)
        else [],
    }


def _receiver(shipped: Mapping[str, Yaml], receivers: Receivers) -> Yaml:
    hooks = shipped.get("webhook_configs")
    urls = [str(hook.get("url")) for hook in hooks if isinstance(hook, Mapping)] if isinstance(hooks, list) else []
    webhooks: list[Yaml] = [_control_hook(url, receivers) for url in urls if url.endswith(CONTROL_WEBHOOK)]
    if len(shipped) > 1 and not webhooks:
        webhooks = [{"url": receivers.sink_url, "send_resolved": True}]
    slack = _to_slack(shipped.get("slack_configs"), receivers.slack_url_file)
    return {"name": shipped["name"], "webhook_configs": webhooks, **({"slack_configs": slack} if slack else {})}


def _to_slack(shipped: Yaml, file: Path | None) -> list[Yaml]:
    """The shipped messages, by the webhook whose URL is in ``file`` and to the channel that it was made for."""
    if file is None or not isinstance(shipped, list):
        return []
    return [
        {**{key: value for key, value in message.items() if key != "channel"}, "api_url_file": str(file)}
        for message in shipped
        if isinstance(message, Mapping)
    ]


def _control_hook(url: str, receivers: Receivers) -> Yaml:
    return {
        "url": f"{receivers.control_url}{urlsplit(url).path}",
        "send_resolved": True,
        "http_config": {"authorization": {"credentials_file": str(receivers.token_file)}},
    }
