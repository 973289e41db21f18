"""The Helm chart: rendered by the engine of Helm itself, and equal to the Kustomize manifests."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python import chart as helm
from tests.deploy.manifests import KUBERNETES, ROOT, Raw, Resource, example, matches, of_kind, parsed, pods
from tools.docs.markdown import CHART

from celerymeter import __version__

OPERATORS = {"PrometheusRule", "ServiceMonitor"}
VERSIONS = ("1.28", kubernetes_validate.latest_version())
EVERYTHING: Mapping[str, Any] = {
    "image": {"repository": "registry.example.org/celerymeter"},
    "control": {"enabled": True},
    **{part: {"enabled": True} for part in ("serviceMonitor", "rules", "dashboards")},
    "networkPolicy": {"enabled": True, "brokerPeers": [{"ipBlock": {"cidr": "192.0.2.10/32"}}]},
}
TWO_CLUSTERS: Mapping[str, Any] = {
    "clusters": [
        {"name": "shop", "broker": {"secret": "shop-broker", "key": "url"}, "resultBackendKey": "results"},
        {"name": "mail", "broker": {"secret": "mail-broker"}, "control": False, "exporterArgs": ["--queues=mail"]},
    ],
    "imagePullSecrets": [{"name": "registry"}],
    "image": {"tag": "0.1.0@sha256:abc"},
    "exporter": {
        "replicas": 2,
        "extraEnv": [{"name": "CELERYMETER_QUEUES", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
        "resources": {"requests": {"cpu": 0.5}},
        "args": ["--poll-interval=30s", "--queues=password_reset,a:b@c"],
        "podLabels": {"team": "shop"},
        "podAnnotations": {"example.org/note": "yes"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "extraContainers": [{"name": "proxy", "image": "proxy:1"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    },
    "control": {
        "enabled": True,
        "extraEnv": [{"name": "TZ", "value": "Asia/Taipei"}],
        "grafanaUrl": "https://grafana.example.org",
        "alertmanagerUrl": "",
        "persistence": {"size": "5Gi", "storageClass": "disk"},
        "ingress": {"enabled": True, "host": "celery.example.org", "tlsSecret": "tls", "className": "nginx"},
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "monitoring"}},
    "networkPolicy": {"enabled": True, "brokerPeers": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "brokerPorts": [6379]},
}
NOTHING: Mapping[str, Any] = {"exporter": {"enabled": False}}
CASES = {"untouched": {}, "everything": EVERYTHING, "two clusters": TWO_CLUSTERS, "nothing": NOTHING}


@cache
def chart() -> helm.Chart:
    """The chart, loaded once."""
    return helm.Chart.load(CHART)


def notes(values: Mapping[str, Any], *, name: str = "celerymeter") -> str:
    """The text that Helm prints after the installation."""
    return chart().render(dict(values), name=name, namespace="celerymeter")["celerymeter/templates/NOTES.txt"]


def render(values: Mapping[str, Any], *, name: str = "celerymeter") -> list[Resource]:
    """The manifests that Helm makes of these values."""
    files = chart().render(dict(values), name=name, namespace="celerymeter")
    return [each for path, text in files.items() if not path.endswith(".txt") for each in parsed(text)]


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_helm_finds_nothing_to_say_against_it(values: Mapping[str, Any]) -> None:
    """Strict linting; an icon is the one thing that it recommends and we have not."""
    report = helm.lint(CHART, dict(values), strict=True)
    assert report["errors"] == []
    assert [each["error"] for each in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_the_schema_of_kubernetes_takes_every_manifest(values: Mapping[str, Any], version: str) -> None:
    """Strictly: no field that it does not know."""
    for resource in render(values):
        if resource.kind not in OPERATORS:
            kubernetes_validate.validate(dict(resource.raw), version, strict=True)


def test_untouched_values_run_one_exporter_and_nothing_else() -> None:
    """Which needs a secret, and no operator."""
    kinds = sorted(each.kind for each in render({}))
    assert kinds == ["Service", "ServiceAccount", "StatefulSet"]


def test_everything_off_installs_nothing() -> None:
    """Not an account, not a policy."""
    assert render(NOTHING) == []


def test_it_is_what_the_kustomize_manifests_are() -> None:
    """Kind by kind and field by field but for labels, selectors and what Helm alone sets."""
    ours = {(each.kind, each.name): _comparable(each.raw) for each in render(EVERYTHING)}
    theirs = {(each.kind, each.name): _comparable(each.raw) for each in example() if each.kind != "Namespace"}
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == value, key


def _comparable(raw: Raw) -> Any:
    """A manifest without labels, annotations, namespaces and selectors by label."""
    plain = copy.deepcopy(dict(raw))
    plain["metadata"] = {"name": plain["metadata"]["name"]}
    spec = plain.get("spec", {})
    for key in ("selector", "podSelector"):
        spec.pop(key, None)
    if "template" in spec:
        spec["template"].pop("metadata")
        for container in spec["template"]["spec"]["containers"]:
            container.pop("imagePullPolicy", None)
    return plain


@pytest.mark.parametrize("name", ["celerymeter", "other"])
def test_selectors_find_the_pods_of_their_own_release_alone(name: str) -> None:
    """Also beside a second release in the same namespace."""
    made = {each: render({**EVERYTHING, **TWO_CLUSTERS}, name=each) for each in ("celerymeter", "other")}
    all_pods = [pod for resources in made.values() for pod in pods(resources)]
    for service in of_kind("Service", made[name]):
        found = [pod.owner for pod in all_pods if matches(service.raw["spec"]["selector"], pod.labels)]
        assert found == [service.name]


def test_each_cluster_has_an_exporter_and_its_label() -> None:
    """And a control API unless it says no."""
    made = render(TWO_CLUSTERS)
    assert sorted(each.name for each in of_kind("StatefulSet", made)) == [
        "celerymeter-control-shop",
        "celerymeter-exporter-mail",
        "celerymeter-exporter-shop",
    ]
    labels = {
        each.name: relabeling["replacement"]
        for each in of_kind("ServiceMonitor", made)
        for relabeling in each.raw["spec"]["endpoints"][0]["relabelings"]
        if relabeling["targetLabel"] == "cluster"
    }
    assert labels == {
        "celerymeter-control-shop": "shop",
        "celerymeter-exporter-mail": "mail",
        "celerymeter-exporter-shop": "shop",
    }
    arguments = {pod.owner: pod.spec["containers"][0]["args"] for pod in pods(made)}
    assert arguments["celerymeter-exporter-mail"][-3:] == [*TWO_CLUSTERS["exporter"]["args"], "--queues=mail"]
    assert "--cluster=shop" in arguments["celerymeter-control-shop"]
    assert (
        "--result-backend-url-file=/run/secrets/celerymeter/result_backend_url" in arguments["celerymeter-control-shop"]
    )


@pytest.mark.parametrize("name", [53 * "r", "shop.eu", "r"])
def test_names_fit_and_differ_however_long_the_release_is_called(name: str) -> None:
    """A StatefulSet's name and ten characters more are a label; a service's name has no dot."""
    clusters = [{"name": f"{36 * 'c'}-{each}", "broker": {"secret": "x"}} for each in ("eu", "us")]
    values = {"clusters": clusters, "control": {"enabled": True}, "rules": {"enabled": True}, "fullnameOverride": ""}
    made = render(values, name=name)
    names = [each.name for each in of_kind("StatefulSet", made)]
    assert len(set(names)) == len(names) == 4
    assert max(map(len, names)) <= 52
    for resource in made:
        if resource.kind not in OPERATORS:
            kubernetes_validate.validate(dict(resource.raw), VERSIONS[0], strict=True)
    for service in of_kind("Service", made):
        assert re.fullmatch("[a-z][-a-z0-9]*[a-z0-9]", service.name)
        found = [pod.owner for pod in pods(made) if matches(service.raw["spec"]["selector"], pod.labels)]
        assert found == [service.name]


def test_two_releases_whose_names_join_to_the_same_select_their_own_pods() -> None:
    """`a` with a cluster `b-c` and `a-b` with a cluster `c`."""
    made = [
        resource
        for name, cluster in (("a", "b-c"), ("a-b", "c"))
        for resource in render({"clusters": [{"name": cluster, "broker": {"secret": "x"}}]}, name=name)
    ]
    selectors = [each.raw["spec"]["selector"] for each in of_kind("Service", made)]
    assert [sum(matches(selector, pod.labels) for pod in pods(made)) for selector in selectors] == [1, 1]


def test_openshift_chooses_the_numbers_of_users() -> None:
    """Once they are taken out of the values; everything else stays."""
    values = {"control": {"enabled": True}, "podSecurityContext": dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"))}
    kept = {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert [pod.spec["securityContext"] for pod in pods(render(values))] == [kept, kept]


def test_what_operators_select_may_be_in_their_namespace() -> None:
    """The monitors look into the release's for their services."""
    elsewhere = {part: {"enabled": True, "namespace": "watch"} for part in ("serviceMonitor", "rules", "dashboards")}
    made = render({**EVERYTHING, **elsewhere})
    moved = {each.kind for each in made if each.raw["metadata"].get("namespace") == "watch"}
    assert moved == {"ServiceMonitor", "PrometheusRule", "ConfigMap"}
    found = [each.raw["spec"]["namespaceSelector"] for each in of_kind("ServiceMonitor", made)]
    assert found == [{"matchNames": ["celerymeter"]}] * 2


def test_it_renders_the_same_twice_and_without_a_cluster() -> None:
    """As Argo CD wants it: nothing is looked up, drawn by lot or dated."""
    again = helm.Chart.load(CHART).render({**EVERYTHING, **TWO_CLUSTERS}, name="celerymeter", namespace="celerymeter")
    files = chart().render({**EVERYTHING, **TWO_CLUSTERS}, name="celerymeter", namespace="celerymeter")
    assert files == again
    (claim,) = of_kind("StatefulSet", render({**NOTHING, "control": {"enabled": True}}))[0].raw["spec"][
        "volumeClaimTemplates"
    ]
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")


def test_it_is_part_of_another_chart(tmp_path: Path) -> None:
    """With `condition: celerymeter.enabled` and values for all charts."""
    parent = tmp_path / "shop"
    shutil.copytree(CHART, parent / "charts" / "celerymeter")
    dependency = {"name": "celerymeter", "version": __version__, "condition": "celerymeter.enabled"}
    about = {"apiVersion": "v2", "name": "shop", "version": "1.0.0", "dependencies": [dependency]}
    (parent / "Chart.yaml").write_text(yaml.safe_dump(about))
    loaded = helm.Chart.load(parent)
    kinds = {}
    for enabled in (True, False):
        values = {"global": {"region": "eu"}, "celerymeter": {"enabled": enabled, "exporter": {"replicas": 2}}}
        files = loaded.render(values, name="shop", namespace="shop")
        kinds[enabled] = [each.kind for path, text in files.items() if path.endswith("yaml") for each in parsed(text)]
    assert sorted(kinds[True]) == ["PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"]
    assert kinds[False] == []


def test_only_two_exporters_have_a_disruption_budget() -> None:
    """For one it would keep a node from being drained."""
    assert of_kind("PodDisruptionBudget", render(EVERYTHING)) == []
    assert len(of_kind("PodDisruptionBudget", render(TWO_CLUSTERS))) == 2


def test_thresholds_replace_defaults_or_add_to_them() -> None:
    """A line with the labels of a default takes its place; one for a queue stands beside it."""
    lines = [
        {"record": "celery:queue_backlog:limit", "expr": 75, "labels": {"severity": "warning"}},
        {"record": "celery:queue_backlog:limit", "expr": 500, "labels": {"severity": "warning", "queue_name": "a"}},
    ]
    (rule,) = of_kind("PrometheusRule", render({"rules": {"enabled": True, "thresholds": lines}}))
    rules = [each for group in rule.raw["spec"]["groups"] for each in group["rules"]]
    backlog = [each for each in rules if each.get("record") == "celery:queue_backlog:limit"]
    assert [(each["expr"], each["labels"]) for each in backlog] == [
        (75, {"severity": "warning"}),
        (500, {"severity": "warning", "queue_name": "a"}),
        ("+Inf", {"severity": "critical"}),
    ]
    (untouched,) = of_kind("PrometheusRule", render({"rules": {"enabled": True}}))
    shipped = yaml.safe_load((ROOT / "alerts/kubernetes/prometheusrule.yaml").read_text())
    assert untouched.raw["spec"] == shipped["spec"]


def test_the_notes_say_what_to_do_next() -> None:
    """Which secrets must exist, and how to look at it."""
    text = notes(TWO_CLUSTERS)
    assert "create secret generic mail-broker --from-file=broker_url" in text
    assert "port-forward service/celerymeter-control-shop 8000" in text
    assert "celerymeter doctor" in text
    assert "Nothing scrapes it yet" in notes({})


def test_versions_are_those_of_the_package() -> None:
    """Chart, application and image."""
    metadata = chart().metadata
    assert (metadata["version"], metadata["appVersion"]) == (__version__, __version__)
    (pod,) = pods(render({}))
    assert pod.container["image"] == f"celerymeter:{__version__}"


def test_the_packaged_chart_is_complete(tmp_path: Path) -> None:
    """Links become files: rules and dashboards are in the archive, and it renders the same."""
    archive = helm.package(CHART, destination=tmp_path)
    packaged = helm.Chart.load(archive).render(dict(EVERYTHING), name="celerymeter", namespace="celerymeter")
    assert packaged == chart().render(dict(EVERYTHING), name="celerymeter", namespace="celerymeter")
    assert all(len(json.dumps(each.raw)) < 1_000_000 for each in render(EVERYTHING))


def test_kustomize_has_every_part_that_the_chart_has() -> None:
    """Or the comparison would compare nothing."""
    assert {"control", "dashboards", "network-policy", "rules", "service-monitor"} <= {
        path.name for path in (KUBERNETES / "components").iterdir()
    }
