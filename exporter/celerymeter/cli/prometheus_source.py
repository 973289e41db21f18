"""The Prometheus that `celerymeter report` and `celerymeter capacity` read: its options, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from celerymeter.errors import PrometheusUnavailable
from celerymeter.kinds import HEADER, HTTP_URL, TEXT
from celerymeter.options import option, setting
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope
from celerymeter.urls import without_password

QUERY_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class PrometheusSource:
    """A Prometheus, and which of its metrics to read."""

    prometheus_url: str = field(
        repr=False,
        metadata=option(HTTP_URL, "Prometheus, or a server with the same API (VictoriaMetrics, Thanos, Mimir)."),
    )
    prometheus_headers: Mapping[str, str] = setting(
        {},
        HEADER,
        "HTTP header to send to Prometheus, such as a tenant or a token; may be repeated.",
        flag="--prometheus-header",
        repeated=True,
    )
    cluster: str | None = setting(
        None, TEXT, "The cluster to report on, if Prometheus has metrics of several (the label cluster)."
    )
    selector: str = setting("", TEXT, "Label matchers to add to every query, such as 'env=\"prod\"'.")

    @property
    def scope(self) -> Scope:
        """The metrics to read."""
        return Scope(self.cluster, self.selector)

    @contextmanager
    def client(self) -> Iterator[PrometheusClient]:
        """Give a client, and add the URL to its errors: those of the control API, which clients see, have none."""
        url = self.prometheus_url
        try:
            with PrometheusClient(
                PrometheusSettings(url, headers=self.prometheus_headers, timeout=QUERY_TIMEOUT)
            ) as client:
                yield client
        except PrometheusUnavailable as error:
            raise PrometheusUnavailable(f"{error}; check --prometheus-url {without_password(url)}") from error
