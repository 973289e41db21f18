"""Lists for the READMEs out of the alert rules and the API's description."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import yaml
from tools.docs.markdown import ROOT, table

_SUBJECTS = ("workers", "queues", "tasks", "slo", "exporter", "control")
"""The files of rules, in the order in which people look."""
_CLUSTER = re.compile(r"{{ with \$labels\.cluster }}.*?{{ end }}")
_LABEL = re.compile(r"{{ \$labels\.(\w+)[^}]*}}")
_VALUE = re.compile(r"{{.*?}}")
_ROLE = re.compile(r"Needs the role (\w+)")
_ALERT_HEADS: Mapping[str, tuple[str, ...]] = {
    "README.md": ("alert and runbook", "severity", "says"),
    "README.zh-TW.md": ("警報與處理手冊", "嚴重度", "內容"),
}
_PATH_HEADS: Mapping[str, tuple[str, ...]] = {
    "README.md": ("request", "role", "what it does"),
    "README.zh-TW.md": ("請求", "角色", "作用"),
}


def alerts(_: str, readme: str) -> str:
    """Every alert, with its runbook, in the words of its summary; a row for all severities of one."""
    summary = "summary" if readme == "README.md" else "summary_zh"
    by_name = {name: list(rules) for name, rules in groupby(_rules(), key=lambda rule: rule["alert"])}
    rows = [
        (
            f"[{name}](alerts/runbooks/{name}.md)",
            ", ".join(dict.fromkeys(rule["labels"]["severity"] for rule in rules)),
            _plain(rules[0]["annotations"][summary]),
        )
        for name, rules in by_name.items()
    ]
    return table(_ALERT_HEADS[readme], rows)


def _plain(summary: str) -> str:
    return _VALUE.sub("*n*", _LABEL.sub(r"*\1*", _CLUSTER.sub("", summary)))


def _rules() -> Iterator[dict[str, Any]]:
    for subject in _SUBJECTS:
        for group in yaml.safe_load((ROOT / "alerts" / "rules" / f"{subject}.yml").read_text())["groups"]:
            yield from (rule for rule in group["rules"] if "alert" in rule)


def paths(_: str, readme: str) -> str:
    """Every operation of the control API, and the lowest role that may ask for it."""
    described = json.loads((ROOT / "exporter" / "celerymeter" / "control" / "openapi.json").read_text())
    rows = [
        (f"`{method.upper()} {path}`", _who(operation), operation["summary"])
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    return table(_PATH_HEADS[readme], rows)


def _who(operation: Mapping[str, object]) -> str:
    if found := _ROLE.search(str(operation.get("description", ""))):
        return found[1]
    security = operation.get("security")
    if isinstance(security, list) and "webhook" in security[0]:
        return "`--webhook-token-file`"
    return "viewer" if operation["operationId"] == "open_feed" else "-"
