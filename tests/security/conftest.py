"""The listener of the exporter's tests, which attacks start and stop likewise, and their readers of events."""

from tests.events.conftest import readers
from tests.httpd.conftest import authority, serve, site

__all__ = ["authority", "readers", "serve", "site"]
