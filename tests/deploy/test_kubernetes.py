"""The Kubernetes manifests: what the API server takes, locked down, and connected to each other."""

from __future__ import annotations

import json
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from tests.deploy.dockerfile import last_stage
from tests.deploy.manifests import KUBERNETES, ROOT, Pod, build, example, matches, of_kind, pods

from celerymeter import __version__

OWNERS = ("celerymeter-control", "celerymeter-exporter")
OPERATORS = {"PrometheusRule", "ServiceMonitor"}
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())
VERSIONS = ("1.28", kubernetes_validate.latest_version())
README = (ROOT / "deploy" / "README.md").read_text()
LAST_APPLIED = 262_144
"""Bytes that all annotations of a resource may have; `kubectl apply` keeps the resource in one."""


@pytest.fixture(params=OWNERS)
def pod(request: pytest.FixtureRequest) -> Pod:
    """The pods of exporter and control API in turn."""
    return next(pod for pod in pods() if pod.owner == request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schema_of_kubernetes_takes_every_manifest(version: str) -> None:
    """Strictly: no field that it does not know."""
    checked = [each for each in example() if each.kind not in OPERATORS]
    assert checked
    for resource in checked:
        kubernetes_validate.validate(dict(resource.raw), version, strict=True)


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_can_be_added_by_itself(component: str, tmp_path: Path) -> None:
    """On top of the base; what changes the control API on top of that."""
    names = {component} | ({"control"} if component == "result-backend" else set())
    paths = [f"components/{name}" for name in sorted(names)]
    (tmp_path / "kubernetes").symlink_to(KUBERNETES)
    overlay = {"resources": ["kubernetes/base"], "components": [f"kubernetes/{path}" for path in paths]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    made = build(tmp_path)
    assert "celerymeter-exporter" in {each.name for each in made if each.kind == "StatefulSet"}
    assert made != build(KUBERNETES / "base")


def test_the_result_backend_is_one_more_argument(tmp_path: Path) -> None:
    """Its component changes the control API alone."""
    (tmp_path / "kubernetes").symlink_to(KUBERNETES)
    components = ["kubernetes/components/control", "kubernetes/components/result-backend"]
    overlay = {"resources": ["kubernetes/base"], "components": components}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    arguments = {each.name: str(each.raw["spec"]["template"]) for each in build(tmp_path) if each.kind == "StatefulSet"}
    assert [name for name, text in arguments.items() if "--result-backend-url-file=" in text] == ["celerymeter-control"]


def test_each_pod_is_locked_down(pod: Pod) -> None:
    """As the pod security standard `restricted` wants it, which the example's namespace enforces, and further."""
    user = int(last_stage()["USER"].rest.partition(":")[0])
    security, container = pod.spec["securityContext"], pod.container["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"]) == (True, user)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert (container["allowPrivilegeEscalation"], container["readOnlyRootFilesystem"]) == (False, True)
    assert pod.spec["automountServiceAccountToken"] is False
    assert pod.container["resources"]["limits"]["memory"]
    (namespace,) = of_kind("Namespace")
    assert namespace.labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_variable_of_kubernetes_can_be_taken_for_a_setting(pod: Pod) -> None:
    """Service links would be called CELERYMETER_CONTROL_PORT and so on."""
    assert pod.spec["enableServiceLinks"] is False
    assert "env" not in pod.container


def test_secrets_are_named_and_not_included(pod: Pod) -> None:
    """The page says how each is made."""
    assert not of_kind("Secret")
    assert pod.secrets
    assert [name for name in pod.secrets if f"create secret generic {name} " not in README] == []


def test_the_image_is_this_release_and_can_be_renamed(pod: Pod) -> None:
    """The example names a registry."""
    assert pod.container["image"] == f"registry.example.org/celerymeter:{__version__}"


def test_each_service_leads_to_ports_of_its_pods() -> None:
    """By their names."""
    assert of_kind("Service")
    for service in of_kind("Service"):
        (pod,) = [pod for pod in pods() if matches(service.raw["spec"]["selector"], pod.labels)]
        assert {port["targetPort"] for port in service.raw["spec"]["ports"]} == set(pod.ports), service.name


def test_each_service_monitor_finds_its_service_and_keeps_the_instance() -> None:
    """The port exists; a new pod of the same name is the same instance."""
    kept = {"action": "replace", "sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"}
    assert of_kind("ServiceMonitor")
    for monitor in of_kind("ServiceMonitor"):
        spec = monitor.raw["spec"]
        (service,) = [each for each in of_kind("Service") if matches(spec["selector"]["matchLabels"], each.labels)]
        (endpoint,) = spec["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service.raw["spec"]["ports"]}, monitor.name
        assert kept in endpoint["relabelings"], monitor.name


def test_each_network_policy_closes_its_pods_but_for_their_ports() -> None:
    """Nobody comes in from anywhere, and every port that serves can be reached from somewhere."""
    for policy in of_kind("NetworkPolicy"):
        spec = policy.raw["spec"]
        (pod,) = [pod for pod in pods() if matches(spec["podSelector"]["matchLabels"], pod.labels)]
        assert set(spec["policyTypes"]) == {"Ingress", "Egress"}, policy.name
        assert all(rule["from"] for rule in spec["ingress"]), policy.name
        assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} == set(pod.ports), policy.name
        assert 53 in {port["port"] for rule in spec["egress"] for port in rule["ports"]}, policy.name


def test_each_network_policy_leads_to_the_address_of_the_broker_alone() -> None:
    """No port is open to everywhere but that of DNS; the example's address is one that nobody has."""
    for policy in of_kind("NetworkPolicy"):
        everywhere = [rule for rule in policy.raw["spec"]["egress"] if "to" not in rule]
        assert [port["port"] for rule in everywhere for port in rule["ports"]] == [53, 53], policy.name
        (broker,) = [rule for rule in policy.raw["spec"]["egress"] if {"port": 6379} in rule["ports"]]
        assert broker["to"] == [{"ipBlock": {"cidr": "192.0.2.10/32"}}], policy.name


def test_every_pod_has_a_network_policy() -> None:
    """None is left open."""
    assert {pod.owner for pod in pods()} == set(OWNERS)
    selectors = [each.raw["spec"]["podSelector"]["matchLabels"] for each in of_kind("NetworkPolicy")]
    assert all(any(matches(selector, pod.labels) for selector in selectors) for pod in pods())


def test_the_rules_are_those_that_we_ship() -> None:
    """Not a copy of them."""
    (rule,) = of_kind("PrometheusRule")
    shipped = yaml.safe_load((ROOT / "alerts/kubernetes/prometheusrule.yaml").read_text())
    assert rule.raw["spec"] == shipped["spec"]


def test_every_dashboard_is_in_a_config_map_of_its_own() -> None:
    """Byte for byte, where the sidecar of Grafana looks, and small enough for `kubectl apply`."""
    maps = of_kind("ConfigMap")
    files = {path.name: path.read_text() for path in (ROOT / "grafana/dashboards").glob("*.json")}
    assert {name: text for each in maps for name, text in each.raw["data"].items()} == files
    assert len(maps) == len(files)
    assert {each.labels["grafana_dashboard"] for each in maps} == {"1"}
    assert all(len(json.dumps(each.raw)) < LAST_APPLIED for each in maps)
