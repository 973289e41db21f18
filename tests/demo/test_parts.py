"""The shipped configurations on the demo's ports."""

from __future__ import annotations

from pathlib import Path

from celerymeter.demo.parts import Receivers, Yaml, alertmanager_config, prometheus_config
from celerymeter.demo.settings import Ports

PORTS = Ports(exporter=1, prometheus=2, alertmanager=3, control_metrics=4)


def test_targets_move_and_rules_are_found() -> None:
    """Known ports become the demo's, other targets stay; the paths of rule files are absolute."""
    shipped: dict[str, Yaml] = {
        "global": {"scrape_interval": "15s", "external_labels": {"site": "x"}},
        "rule_files": ["rules/*.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["localhost:9093"]}]}]},
        "scrape_configs": [
            {"job_name": "celery", "static_configs": [{"targets": ["localhost:9808"], "labels": {"cluster": "main"}}]},
            {"job_name": "node", "static_configs": [{"targets": ["db:9100"]}]},
        ],
    }
    assert prometheus_config(shipped, folder=Path("/shipped"), ports=PORTS) == {
        "global": {
            "scrape_interval": "5s",
            "scrape_timeout": "5s",
            "evaluation_interval": "5s",
            "external_labels": {"site": "x"},
        },
        "rule_files": ["/shipped/rules/*.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["127.0.0.1:3"]}]}]},
        "scrape_configs": [
            {"job_name": "celery", "static_configs": [{"targets": ["127.0.0.1:1"], "labels": {"cluster": "main"}}]},
            {"job_name": "node", "static_configs": [{"targets": ["db:9100"]}]},
        ],
    }


def test_routing_stays_and_receivers_need_no_secret() -> None:
    """The control API keeps its webhook; mail, chat and pager become the sink; an empty receiver stays empty."""
    route: Yaml = {"receiver": "chat", "routes": [{"receiver": "pager"}]}
    hook: Yaml = {"url": "http://127.0.0.1:8000/celery-admin/alerts/webhook", "http_config": {"authorization": {}}}
    shipped: dict[str, Yaml] = {
        "global": {"smtp_auth_password_file": "/run/secrets/smtp"},
        "templates": ["templates/*.tmpl"],
        "route": route,
        "inhibit_rules": [],
        "receivers": [
            {"name": "log", "webhook_configs": [hook]},
            {"name": "chat", "slack_configs": []},
            {"name": "pager", "email_configs": [], "webhook_configs": [{"url": "https://pager.example.org"}]},
            {"name": "watchdog"},
        ],
    }
    receivers = Receivers("http://127.0.0.1:5", Path("/token"), "http://sink")
    sink: Yaml = [{"url": "http://sink", "send_resolved": True}]
    assert alertmanager_config(shipped, folder=Path("/shipped"), receivers=receivers) == {
        "templates": ["/shipped/templates/*.tmpl"],
        "route": route,
        "inhibit_rules": [],
        "receivers": [
            {
                "name": "log",
                "webhook_configs": [
                    {
                        "url": "http://127.0.0.1:5/celery-admin/alerts/webhook",
                        "send_resolved": True,
                        "http_config": {"authorization": {"credentials_file": "/token"}},
                    }
                ],
            },
            {"name": "chat", "webhook_configs": sink},
            {"name": "pager", "webhook_configs": sink},
            {"name": "watchdog", "webhook_configs": []},
        ],
    }


def test_slack_gets_the_shipped_message_by_the_webhook_in_the_file() -> None:
    """The sink gets it too; the channel is the webhook's; receivers without Slack stay without."""
    message: dict[str, Yaml] = {"title": "{{ template }}", "send_resolved": True}
    shipped: dict[str, Yaml] = {
        "receivers": [
            {"name": "chat", "slack_configs": [{"channel": "#celery-alerts", **message}]},
            {"name": "pager", "email_configs": []},
        ]
    }
    receivers = Receivers("http://127.0.0.1:5", Path("/token"), "http://sink", slack_url_file=Path("/url"))
    sink: Yaml = [{"url": "http://sink", "send_resolved": True}]
    assert alertmanager_config(shipped, folder=Path("/shipped"), receivers=receivers)["receivers"] == [
        {"name": "chat", "webhook_configs": sink, "slack_configs": [{**message, "api_url_file": "/url"}]},
        {"name": "pager", "webhook_configs": sink},
    ]
