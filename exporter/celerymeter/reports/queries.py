"""The PromQL of reports: constants with slots (`celerymeter.prometheus.scope`), never built from input."""

from __future__ import annotations

LIVES = "celerymeter_start_time_seconds{SEL}[$window]"
"""Every scrape of every exporter: the sample's time is the page, its value the life."""

PAST = "celerymeter_start_time_seconds{SEL, cluster=$cluster, job=$job, instance=$instance}[$window]"
"""The same of one exporter."""

PAGE = (
    "sum by (__name__, name, queue_name, le) (last_over_time({SEL, cluster=$cluster, job=$job, instance=$instance,"
    ' __name__=~"celery_task_(succeeded|failed|retried|rejected|revoked)_total'
    '|celery_task_(runtime|failed_runtime|wait)_seconds_(sum|count)|celery_task_(runtime|wait)_seconds_bucket",'
    ' requeue!="true"}[1s]))'
)
"""One page at its own time: the short window keeps out what only Prometheus' lookback would still show."""
