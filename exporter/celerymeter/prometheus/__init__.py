"""Client of the Prometheus HTTP API, for any engine that speaks it (Prometheus, VictoriaMetrics, Thanos, Mimir).

>>> scope = Scope(cluster="eu")
>>> scope.render('celery_queue_length{SEL, queue_name=$queue}', queue='a"b')
'celery_queue_length{cluster="eu", queue_name="a\\\\"b"}'
"""

from celerymeter.prometheus.client import PrometheusClient, PrometheusSettings, QueryObserver
from celerymeter.prometheus.scope import Scope, choose_cluster, clusters
from celerymeter.prometheus.values import Matrix, Point, Sample, Series, Vector

__all__ = [
    "Matrix",
    "Point",
    "PrometheusClient",
    "PrometheusSettings",
    "QueryObserver",
    "Sample",
    "Scope",
    "Series",
    "Vector",
    "choose_cluster",
    "clusters",
]
