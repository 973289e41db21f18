"""Monitor and operate Celery with Prometheus and Grafana."""

__version__ = "0.1.0"
