"""The Prometheus that `celerymeter report` and `celerymeter capacity` read: its options, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from celerymeter.bounded_http import Unsendable, advice
from celerymeter.errors import PrometheusUnavailable
from celerymeter.kinds import HTTP_URL
from celerymeter.options import option
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope
from celerymeter.settings import cluster_setting, headers_setting, selector_setting
from celerymeter.urls import without_password

QUERY_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class PrometheusSource:
    """A Prometheus, and which of its metrics to read."""

    prometheus_url: str = field(
        repr=False,
        metadata=option(HTTP_URL, "Prometheus, or a server with the same API (VictoriaMetrics, Thanos, Mimir)."),
    )
    prometheus_headers: Mapping[str, str] = headers_setting()
    cluster: str | None = cluster_setting("report on")
    selector: str = selector_setting()

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
            if isinstance(error.__cause__, Unsendable):
                raise PrometheusUnavailable(str(error.__cause__)) from error
            known = advice(url, error.__cause__)
            raise PrometheusUnavailable(
                f"{error}; check --prometheus-url {without_password(url)}{known and f': {known}'}"
            ) from error
