"""The cluster as Prometheus shows it now: `models` has the values, `snapshot` reads them."""
