"""State → Prometheus text format (version 0.0.4). Nothing else knows the format."""
