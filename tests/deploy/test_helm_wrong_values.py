"""Wrong values of the Helm chart, as people write them: each refused with its place, and without showing a password."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from helm_python.errors import HelmError
from tests.deploy.test_helm import render

PASSWORD = "hunter2"
URL = f"redis://:{PASSWORD}@redis:6379/0"
WRONG = {
    "a word for a number": ({"exporter": {"replicas": "two"}}, "'/exporter/replicas': got string, want integer"),
    "too many exporters": ({"exporter": {"replicas": 7}}, "'/exporter/replicas': maximum: got 7, want 2"),
    "a misspelt section": ({"exporer": {}}, "additional properties 'exporer' not allowed"),
    "a misspelt value": (
        {"control": {"prometheusURL": "http://p"}},
        "additional properties 'prometheusURL' not allowed",
    ),
    "no cluster": ({"clusters": []}, "'/clusters': minItems: got 0, want 1"),
    "a cluster without broker": ({"clusters": [{"name": "eu"}]}, "'/clusters/0': missing property 'broker'"),
    "a URL without scheme": (
        {"control": {"prometheusUrl": "prometheus:9090"}},
        "control.prometheusUrl: must be a URL such as http://prometheus.monitoring:9090",
    ),
    "a name that no object may have": (
        {"clusters": [{"name": "E U", "broker": {"secret": "x"}}]},
        "'/clusters/0/name'",
    ),
    "an interval without unit": ({"serviceMonitor": {"interval": "15"}}, "'/serviceMonitor/interval'"),
    "a threshold of no rule": (
        {"rules": {"thresholds": [{"record": "up", "expr": 1}]}},
        "'/rules/thresholds/0/record'",
    ),
    "an argument without dashes": (
        {"exporter": {"args": ["queues=a"]}},
        "exporter.args[0]: must be one option with its value, in the form --name=value",
    ),
    "a port by name": ({"networkPolicy": {"brokerPorts": ["redis"]}}, "'/networkPolicy/brokerPorts/0': got string"),
    "two clusters of one name": (
        {"clusters": [{"name": "a", "broker": {"secret": "x"}}, {"name": "a", "broker": {"secret": "y"}}]},
        'two clusters are called "a"',
    ),
    "several clusters, one without name": (
        {"clusters": [{"broker": {"secret": "x"}}, {"name": "a", "broker": {"secret": "y"}}]},
        "each needs a name",
    ),
    "a broker's URL for its secret": (
        {"clusters": [{"broker": {"secret": URL}}]},
        "clusters[0].broker.secret: must be the name of a secret that exists",
    ),
    "a broker's URL in place of all that": (
        {"clusters": [{"broker": {"url": URL}}]},
        "'/clusters/0/broker': additional properties 'url' not allowed",
    ),
    "a broker's URL as option": (
        {"exporter": {"args": [f"--broker-url={URL}"]}},
        "exporter.args[0]: a secret must not be on a command line",
    ),
    "the same in two words": (
        {"clusters": [{"broker": {"secret": "x"}, "controlArgs": ["--result-backend-url", URL]}]},
        "clusters[0].controlArgs[0]: a secret must not be on a command line",
    ),
    "a password in another URL": (
        {"exporter": {"args": [f"--rabbitmq-management-url=http://guest:{PASSWORD}@rabbit:15672"]}},
        "exporter.args[0]: a secret must not be on a command line",
    ),
    "a password in JSON": (
        {"exporter": {"args": [f'--transport-option=sentinel_kwargs={{"password": "{PASSWORD}"}}']}},
        "exporter.args[0]: a secret must not be on a command line",
    ),
    "a password in the URL of Prometheus": (
        {"control": {"prometheusUrl": f"http://me:{PASSWORD}@prometheus:9090"}},
        "control.prometheusUrl: must be a URL such as http://prometheus.monitoring:9090, without user and password",
    ),
    "a secret for its name": ({"control": {"secret": f"{PASSWORD}="}}, "control.secret: must be the name of a secret"),
    "a URL for a key": (
        {"clusters": [{"broker": {"secret": "x"}, "resultBackendKey": URL}]},
        "clusters[0].resultBackendKey: must be a key of that secret",
    ),
    "a secret's name as other charts call it": (
        {"clusters": [{"broker": {"existingSecret": "x"}}]},
        "'/clusters/0/broker': additional properties 'existingSecret' not allowed",
    ),
    "an image with its tag": (
        {"image": {"repository": "registry.example.org:5000/celerymeter:0.1.0"}},
        "image.repository: must be an image without a tag; image.tag is the place for it",
    ),
    "a tag that YAML takes for a number": ({"image": {"tag": 1.10}}, "'/image/tag': got number, want string"),
    "memory without unit": (
        {"exporter": {"resources": {"limits": {"memory": 512}}}},
        "'/exporter/resources/limits/memory': got number, want string",
    ),
    "memory in megabits": ({"control": {"resources": {"limits": {"memory": "512m"}}}}, "(Ki|Mi|Gi|Ti|k|M|G|T)"),
    "an address without its length": (
        {"networkPolicy": {"brokerPeers": [{"ipBlock": {"cidr": "10.0.0.1"}}]}},
        "'/networkPolicy/brokerPeers/0/ipBlock/cidr'",
    ),
    "a variable that is a number": (
        {"exporter": {"extraEnv": [{"name": "CELERYMETER_MAX_QUEUES", "value": 5}]}},
        "'/exporter/extraEnv/0/value': got number, want string",
    ),
    "a variable that holds a password": (
        {"control": {"extraEnv": [{"name": "CELERYMETER_RESULT_BACKEND_URL", "value": URL}]}},
        "control.extraEnv[0]: a URL with its password belongs into a secret, which valueFrom names",
    ),
    "a label of the chart's own": (
        {"exporter": {"podLabels": {"app.kubernetes.io/name": "mine"}}},
        "exporter.podLabels: the chart itself sets app.kubernetes.io/name",
    ),
    "a misspelt threshold": (
        {"rules": {"thresholds": [{"record": "celery:queue_backlogs:limit", "expr": 1}]}},
        "rules.thresholds[0].record: there is no threshold celery:queue_backlogs:limit; there are celery:always",
    ),
    "a threshold without severity": (
        {"rules": {"thresholds": [{"record": "celery:queue_age:limit", "expr": 1, "labels": {"queue_name": "a"}}]}},
        'those of celery:queue_age:limit are [{"severity":"warning"}, {"severity":"critical"}]',
    ),
    "an owner of nothing": (
        {"rules": {"owners": {"owners": [{"owner": "payments"}]}}},
        "'/rules/owners/owners/0': missing property 'queues'",
    ),
    "a name that no service may have": ({"fullnameOverride": "1shop"}, "fullnameOverride: names of services begin"),
    "a name that is too long": ({"fullnameOverride": 70 * "a"}, "'/fullnameOverride': maxLength: got 70, want 40"),
    "an ingress without host": ({"control": {"ingress": {"enabled": True}}}, "control.ingress.host"),
    "an ingress without TLS": (
        {"control": {"ingress": {"enabled": True, "host": "a.example"}}},
        "tokens must not travel without TLS",
    ),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_refused_with_its_place(values: Mapping[str, Any], message: str) -> None:
    """By the schema, or by a sentence of the chart."""
    with pytest.raises(HelmError) as refused:
        render(values)
    assert message in str(refused.value)
    assert PASSWORD not in str(refused.value)
