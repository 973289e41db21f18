"""What goes on now, by Prometheus: `figures` and `dashboard` (pure); `lookout` asks, `sampler` asks every interval."""
