"""Batch revoke: `evidence` of where each task is, what to `decide` from it, and the `followup` until all is settled."""
