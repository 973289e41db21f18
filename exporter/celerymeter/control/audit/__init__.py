"""The audit trail: each action with its caller, targets, reason and outcome, in a chain that shows every tampering.

`trail` appends rows and reads them, `maintenance` does what is due every minute, `views` is ``GET /audit``, `offline`
reads and verifies a trail from a shell. A view that changes anything does it inside::

    with audit.act(current_actor(), "monitoring.start", target=workers, reason=body.reason) as act:
        act.detail = start(...)          # raising instead writes the outcome "failed" or "refused"
"""
