"""Writes what is made of the rules: the Kubernetes manifest and the table in README.md.

``python generate.py`` writes both; ``--check`` writes nothing and exits 1 when one is out of date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import yaml

HERE = Path(__file__).resolve().parent
FILES = ("thresholds", "recording", "effective", "workers", "queues", "tasks", "slo", "exporter", "control")
MANIFEST = HERE / "kubernetes" / "prometheusrule.yaml"
README = HERE / "README.md"
BEGIN, END = "<!-- alerts: written by generate.py -->", "<!-- end of alerts -->"
HEAD = """\
# Written by generate.py from rules/*.yml. The Prometheus operator takes it when its ruleSelector matches the labels
# below (with the kube-prometheus-stack chart add `release: NAME`). Overrides go into a PrometheusRule of your own.
"""

Rule = TypedDict(
    "Rule",
    {"alert": str, "expr": str, "for": str, "labels": Mapping[str, str], "annotations": Mapping[str, str]},
    total=False,
)


class Group(TypedDict):
    """A rule group as Prometheus reads it."""

    rules: Sequence[Rule]


_CLUSTER = re.compile(r"^\{\{ with \$labels\.cluster }}.*?\{\{ end }}")
_LABEL = re.compile(r"\{\{ \$labels\.(\w+) }}")
_VALUE = re.compile(r"\{\{ \$value.*?}}")
_LIMIT = re.compile(r"celery:\w+(?=:effective)")


class _Dumper(yaml.SafeDumper):
    """Expressions and texts of several lines as blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless and flow)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def groups() -> list[Group]:
    """Every rule group, in the order in which one builds on the other."""
    return [group for name in FILES for group in yaml.safe_load((HERE / "rules" / f"{name}.yml").read_text())["groups"]]


def manifest(rule_groups: list[Group]) -> str:
    """The rules as one PrometheusRule."""
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "celerymeter", "labels": {"app.kubernetes.io/name": "celerymeter", "role": "alert-rules"}},
        "spec": {"groups": [_as_resource(group) for group in rule_groups]},
    }
    return HEAD + yaml.dump(resource, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _as_resource(group: Group) -> Group:
    """The operator wants every expression as a string."""
    return {**group, "rules": [{**rule, "expr": str(rule["expr"])} for rule in group["rules"]]}


def table(rule_groups: list[Group]) -> str:
    """A row for each alert."""
    rows = ["| alert | severity | after | says | limit (`thresholds.yml`) |", "|---|---|---|---|---|"]
    rows += [_row(rule) for group in rule_groups for rule in group["rules"] if "alert" in rule]
    return "\n".join(rows)


def _row(rule: Rule) -> str:
    name, labels = rule["alert"], rule["labels"]
    says = _VALUE.sub("*n*", _LABEL.sub(r"*\1*", _CLUSTER.sub("", rule["annotations"]["summary"])))
    severity = labels["severity"] + (f" ({labels['window']})" if "window" in labels else "")
    limits = ", ".join(f"`{limit}`" for limit in dict.fromkeys(_LIMIT.findall(rule["expr"])))
    return f"| [{name}](runbooks/{name}.md) | {severity} | {rule.get('for', 'at once')} | {says} | {limits} |"


def readme(text: str, rule_groups: list[Group]) -> str:
    """README.md with its table anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table(rule_groups)}\n\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write, or check."""
    rule_groups = groups()
    made = {MANIFEST: manifest(rule_groups), README: readme(README.read_text(), rule_groups)}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if "--check" in arguments:
        sys.stderr.write("".join(f"{path} is out of date: run python alerts/generate.py\n" for path in stale))
        return 1 if stale else 0
    for path in stale:
        path.write_text(made[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
