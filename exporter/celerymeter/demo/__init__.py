"""The demo: a small shop, its workload, and everything that monitors them, on this machine."""

AGGREGATE = "CELERYMETER_DEMO_AGGREGATE"
"""The variable that makes the shop's workers count their tasks instead of sending events."""
