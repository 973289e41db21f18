"""The audit trail: who did what, to which ids, why, and what came of it; a chain that shows every tampering.

`chain` is pure (rows, their HMACs, verification), `trail` writes and reads them, `refusals` folds what strangers
cause, `keeper` does what is done by the minute, `views` is ``GET /audit``. A view that changes anything
does it inside::

    with audit.act(current_actor(), "monitoring.start", target=workers, reason=body.reason) as act:
        act.outcome = start(...)          # raising instead writes the outcome "failed" or "refused"
"""
