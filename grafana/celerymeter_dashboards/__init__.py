"""Grafana dashboards as code: one module each, beside what they are built from.

``python -m celerymeter_dashboards`` (``make dashboards``) writes ``grafana/dashboards/*.json``.
"""
