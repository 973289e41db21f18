"""Grafana dashboards as code: one module for each, and the modules that they are built from.

``python -m celerymeter_dashboards`` (``make dashboards``) writes ``grafana/dashboards/*.json``.
"""
