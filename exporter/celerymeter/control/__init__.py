"""The control API. `server` serves what `app` makes of the parts that `parts` builds.

Before every view `auth` runs, with the identities of `tokens`; `routing` is how views are written and `errors` how they
refuse. `store` is the state directory, which one process uses at a time, `audit` the trail in it. `system`,
`monitoring`, `tasks`, `feed`, `alerts`, `reports` and `audit.views` are the blueprints; `cluster` asks Prometheus,
`live_workers` reads events, `task_events` turns task events on and off, `revocation` revokes.
"""
