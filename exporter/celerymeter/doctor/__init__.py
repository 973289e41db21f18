"""Finds what is wrong with the monitoring of a cluster.

`collect` reads the broker, the exporter, Prometheus and the control API into `evidence`. `checks` are pure functions
from the evidence to findings: to add one, write it beside similar ones and list it in `checks.CHECKS`. `report` prints
the findings, and `examine` is the command.
"""
