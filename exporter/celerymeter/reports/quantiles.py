"""Quantiles of histograms, as Prometheus' `histogram_quantile` computes them."""

from __future__ import annotations

import math
from collections.abc import Mapping


def quantile(q: float, buckets: Mapping[float, float]) -> float | None:
    """The ``q``-quantile of cumulative counts by upper bound (one of them +Inf); ``None`` when nothing was counted.

    Linear within a bucket, which begins at 0 for the first; beyond the last finite bound it is that bound.

    >>> quantile(0.5, {1.0: 10.0, 2.0: 20.0, math.inf: 20.0})
    1.0
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank = q * total
    before, lower = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return lower
            share = (rank - before) / (buckets[bound] - before) if buckets[bound] > before else 1.0
            return lower + (bound - lower) * share
        before, lower = buckets[bound], bound
    return lower
