"""Compose, Kustomize and Helm run the same: options, variables and limits, but for a few differences with a reason."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from tests.deploy import compose
from tests.deploy.compose import MAIN, ROOT
from tests.deploy.manifests import KUBERNETES, Pod, build, pods
from tests.deploy.running import Running, of_compose, of_pod
from tests.deploy.test_helm import render

Way: TypeAlias = "Mapping[str, Running]"
Values: TypeAlias = "tuple[str | None, ...]"
"""Of compose, of Kustomize, of Helm."""
COMPONENTS = ("exporter", "control")
NODE = "Kubernetes limits processes for each node, not for each pod"
SHOP = "the shop has a result backend; in Kubernetes it is a component, and a value, for those who have one"
NAMES = "each network has names of its own"
DIFFERENCES: Mapping[str, tuple[Values, str]] = {
    "exporter processes": (("64", None, None), NODE),
    "control processes": (("512", None, None), NODE),
    "control --result-backend-url-file": (("/run/secrets/result_backend_url", None, None), SHOP),
    "control --prometheus-url": (
        ("http://prometheus:9090", *["http://prometheus-operated.monitoring:9090"] * 2),
        NAMES,
    ),
    "control --alertmanager-url": (
        ("http://alertmanager:9093", *["http://alertmanager-operated.monitoring:9093"] * 2),
        NAMES,
    ),
    "control --grafana-url": (
        ("http://localhost:3000", None, None),
        "compose publishes Grafana there; elsewhere only its owner knows the address",
    ),
    "control --state-dir": (
        ("/var/lib/celerymeter", *["/var/lib/celerymeter/state"] * 2),
        "a volume of Kubernetes belongs to root, so the API makes a folder of its own in it",
    ),
}


@pytest.fixture(scope="module")
def ways(secrets: Path) -> Sequence[Way]:
    """Exporter and control API of docker-compose.yml, of the Kustomize manifests and of the chart."""
    return (composed(Path(MAIN), secrets), of_pods(kustomized()), of_pods(charted()))


def composed(file: Path, secrets: Path) -> Way:
    """Both services."""
    found = compose.resolved(str(file), secrets=secrets).services
    return {name: of_compose(found[name]) for name in COMPONENTS}


def kustomized() -> Mapping[str, Pod]:
    """The base with the component of the control API."""
    return by_component(pods())


def charted() -> Mapping[str, Pod]:
    """The chart with its own values, and the control API, which is off."""
    return by_component(pods(render({"control": {"enabled": True}})))


def by_component(found: Sequence[Pod]) -> Mapping[str, Pod]:
    """Pods by what they run."""
    return {pod.labels["app.kubernetes.io/component"]: pod for pod in found}


def of_pods(found: Mapping[str, Pod]) -> Way:
    """Both pods."""
    return {name: of_pod(found[name]) for name in COMPONENTS}


def differences(ways: Sequence[Way]) -> Mapping[str, Sequence[str | None]]:
    """Return what is not the same in all of them."""
    found = {}
    for component in COMPONENTS:
        for name in {name for way in ways for name in way[component]}:
            values = tuple(way[component].get(name) for way in ways)
            if len(set(values)) > 1:
                found[f"{component} {name}"] = values
    return found


def test_all_three_run_the_same(ways: Sequence[Way]) -> None:
    """But for what is listed above; what is no longer different must leave the list."""
    assert differences(ways) == {name: values for name, (values, _) in DIFFERENCES.items()}


def test_the_base_alone_runs_the_same_exporter() -> None:
    """The example, which is compared, changes only its image."""
    (base,) = pods(build(KUBERNETES / "base"))
    assert of_pod(base) == of_pod(kustomized()["exporter"])


POD_CHANGES: Mapping[str, tuple[Callable[[Any], object], str]] = {
    "an option more": (lambda container: container["args"].append("--log-level=debug"), "--log-level"),
    "an option less": (lambda container: container["args"].pop(), "--metrics-listen"),
    "a variable": (lambda container: container.update(env=[{"name": "A", "value": "b"}]), "variable A"),
    "memory": (lambda container: container["resources"]["limits"].update(memory="1Gi"), "memory"),
    "processors": (lambda container: container["resources"]["limits"].update(cpu="1"), "limit of cpu"),
    "the root file system": (
        lambda container: container["securityContext"].update(readOnlyRootFilesystem=False),
        "read only",
    ),
}


@pytest.mark.parametrize("way", [1, 2], ids=["kustomize", "helm"])
@pytest.mark.parametrize(("change", "name"), POD_CHANGES.values(), ids=POD_CHANGES)
def test_a_change_of_one_manifest_alone_is_found(
    way: int, change: Callable[[Any], object], name: str, ways: Sequence[Way]
) -> None:
    """By its name."""
    changed = copy.deepcopy({1: kustomized, 2: charted}[way]())
    change(changed["control"].container)
    sides = [of_pods(changed) if number == way else side for number, side in enumerate(ways)]
    assert differences(sides).keys() - DIFFERENCES.keys() == {f"control {name}"}


COMPOSE_CHANGES = {
    "an option more": ("  - control\n", "  - control\n      - --log-level=debug\n", "--log-level"),
    "an option less": ('      - --metrics-listen\n      - ":9809"\n', "", "--metrics-listen"),
    "a variable": ("  control:\n", "  control:\n    environment: {A: b}\n", "variable A"),
    "memory": ("    mem_limit: 512m\n    pids_limit: 512\n", "    mem_limit: 1g\n    pids_limit: 512\n", "memory"),
    "the root file system": ("  control:\n", "  control:\n    read_only: false\n", "read only"),
}


@pytest.mark.parametrize(("old", "new", "name"), COMPOSE_CHANGES.values(), ids=COMPOSE_CHANGES)
def test_a_change_of_compose_alone_is_found(
    old: str, new: str, name: str, ways: Sequence[Way], secrets: Path, tmp_path: Path
) -> None:
    """By its name."""
    text = (ROOT / MAIN).read_text()
    assert old in text
    changed = tmp_path / MAIN
    changed.write_text(text.replace(old, new, 1))
    assert differences([composed(changed, secrets), *ways[1:]]).keys() - DIFFERENCES.keys() == {f"control {name}"}
