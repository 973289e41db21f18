"""Queue depths on Redis."""
