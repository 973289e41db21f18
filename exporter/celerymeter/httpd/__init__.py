"""The exporter's HTTP server: a page that is rendered elsewhere, health, TLS and basic auth."""

from celerymeter.httpd.push import PushEndpoint
from celerymeter.httpd.server import MetricsServer
from celerymeter.httpd.web_config import WebConfig, load_web_config

__all__ = ["MetricsServer", "PushEndpoint", "WebConfig", "load_web_config"]
