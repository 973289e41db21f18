"""The listener of the exporter's tests, which attacks start and stop likewise."""

from tests.httpd.conftest import authority, serve, site

__all__ = ["authority", "serve", "site"]
