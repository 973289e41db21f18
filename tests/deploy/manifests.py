"""The Kubernetes manifests as kustomize builds them, and what the checks ask of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
KUBECTL = Path(sys.executable).parent / "kubectl"
Raw: TypeAlias = "Mapping[str, Any]"


@dataclass(frozen=True, slots=True)
class Resource:
    """One manifest."""

    kind: str
    name: str
    raw: Raw

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        found: Mapping[str, str] = self.raw["metadata"].get("labels", {})
        return found


@dataclass(frozen=True, slots=True)
class Probe:
    """One HTTP probe of a container, with the number of the port that it names."""

    name: str
    path: str
    port: int


@dataclass(frozen=True, slots=True)
class Pod:
    """The pods of one workload: they have one container each."""

    owner: str
    labels: Mapping[str, str]
    spec: Raw

    @property
    def container(self) -> Raw:
        """The container."""
        (only,) = self.spec["containers"]
        found: Raw = only
        return found

    @property
    def ports(self) -> Mapping[str, int]:
        """Ports by name."""
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    @property
    def probes(self) -> Sequence[Probe]:
        """All three."""
        names = ("startupProbe", "livenessProbe", "readinessProbe")
        asked = {name: self.container[name]["httpGet"] for name in names}
        return [Probe(name, each["path"], self.ports[each["port"]]) for name, each in asked.items()]

    @property
    def secrets(self) -> set[str]:
        """The names of the secrets that it mounts."""
        return set(_secrets(self.spec["volumes"]))


def _secrets(volumes: Iterable[Raw]) -> Iterator[str]:
    for volume in volumes:
        if "secret" in volume:
            yield volume["secret"]["secretName"]
        for source in volume.get("projected", {}).get("sources", ()):
            yield source["secret"]["name"]


def build(folder: Path) -> list[Resource]:
    """Return what ``kubectl kustomize`` makes of a folder; fails with its words."""
    ran = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return parsed(ran.stdout)


def parsed(text: str) -> list[Resource]:
    """The manifests of a text."""
    raw = [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]
    return [Resource(each["kind"], each["metadata"]["name"], each) for each in raw]


@cache
def example() -> Sequence[Resource]:
    """All of it."""
    return build(KUBERNETES / "example")


def of_kind(kind: str, resources: Sequence[Resource] | None = None) -> list[Resource]:
    """The resources of one kind, in the example or among others."""
    return [each for each in (example() if resources is None else resources) if each.kind == kind]


def pods(resources: Sequence[Resource] | None = None) -> list[Pod]:
    """Those of exporter and control API, in the example or in other resources."""
    templates = [(each.name, each.raw["spec"]["template"]) for each in of_kind("StatefulSet", resources)]
    return [Pod(name, template["metadata"]["labels"], template["spec"]) for name, template in templates]


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Return whether a selector by labels selects something with these."""
    return selector.items() <= labels.items()
