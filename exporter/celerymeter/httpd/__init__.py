"""The exporter's HTTP side: a page that is rendered elsewhere, health, TLS and basic auth; nothing else."""

from celerymeter.httpd.server import MetricsServer
from celerymeter.httpd.webconfig import WebConfig, load_web_config

__all__ = ["MetricsServer", "WebConfig", "load_web_config"]
