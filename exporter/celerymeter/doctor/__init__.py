"""What is wrong with a cluster's monitoring, and how to mend it.

`collect` looks at broker, exporter, Prometheus and control API and gives `evidence`; `checks` are pure functions from
that to `finding`s, one a check: to add one, write it beside its like and name it in `checks.CHECKS`. `examine` puts
them together, `report` prints.
"""
