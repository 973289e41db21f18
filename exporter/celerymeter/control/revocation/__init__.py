"""Batch revoke: what is known of each id (`evidence`), what it allows to say (`verdict`), and holding to it
(`followup`), for Celery's own answer to a revoke is the same whether the task ends, runs on, or never was.
"""
