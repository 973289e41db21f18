"""Writes the configuration files beside it: those in ``alerts/`` with the addresses and secrets of docker-compose.yml.

``python deploy/compose/generate.py`` writes; ``--check`` writes nothing and exits 1 when one is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ALERTS = HERE.parents[1] / "alerts"
HEAD = "# Written by deploy/compose/generate.py from alerts/{source}: change that one, and run make generate.\n"
ADDRESSES = {
    "127.0.0.1:9808": "exporter:9808",
    "127.0.0.1:9809": "control:9809",
    "127.0.0.1:9090": "prometheus:9090",
    "127.0.0.1:9093": "alertmanager:9093",
}
CONTROL = ("http://127.0.0.1:8000", "http://control:8000")
SECRETS = {
    "/etc/celerymeter/secrets/control_token": "/run/secrets/webhook_token",
    "/etc/celerymeter/secrets/slack_url": "/run/secrets/slack_url",
}


def prometheus() -> str:
    """prometheus.yml with the services' names for addresses; raises `ValueError` when one of them is not in it."""
    return HEAD.format(source="prometheus.yml") + _replaced((ALERTS / "prometheus.yml").read_text(), ADDRESSES)


def alertmanager(*, slack: bool) -> str:
    """alertmanager.yml: everything to the control API and, with ``slack``, to the chat; the other receivers are empty.

    Nothing in it then needs an account somewhere.
    """
    text = _replaced((ALERTS / "alertmanager.yml").read_text(), {CONTROL[0]: CONTROL[1], **SECRETS})
    shipped = yaml.safe_load(text)
    kept = {"resolve_timeout", *(["slack_api_url_file"] if slack else [])}
    config = {
        **shipped,
        "global": {key: value for key, value in shipped["global"].items() if key in kept},
        "receivers": [_receiver(each, slack=slack) for each in shipped["receivers"]],
    }
    body = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
    return HEAD.format(source="alertmanager.yml") + body


def _receiver(shipped: Mapping[str, object], *, slack: bool) -> Mapping[str, object]:
    kept = {"log": "webhook_configs", "chat": "slack_configs" if slack else ""}.get(str(shipped["name"]))
    return {key: value for key, value in shipped.items() if key in {"name", kept}}


def _replaced(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        if old not in text:
            raise ValueError(f"{old} is no longer there")
        text = text.replace(old, new)
    return text


def main(arguments: list[str]) -> int:
    """Write, or check."""
    made = {
        HERE / "prometheus.yml": prometheus(),
        HERE / "alertmanager.yml": alertmanager(slack=False),
        HERE / "alertmanager-slack.yml": alertmanager(slack=True),
    }
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if "--check" in arguments:
        sys.stderr.write("".join(f"{path} is out of date: run `make generate`\n" for path in stale))
        return 1 if stale else 0
    for path in stale:
        path.write_text(made[path])
        sys.stdout.write(f"deploy/compose/{path.name} written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
