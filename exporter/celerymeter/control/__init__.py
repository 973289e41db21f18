"""The control API. `server` serves what `app` makes of the parts that `parts` builds.

Before every view `auth` runs, with `tokens`, `throttle` and `addresses`; `routing` is how views are written and
`errors` how they refuse. `store` is the state directory, `instances` who shares it, `audit` the trail in it.
`system`, `monitoring`, `feed`, `alerts` and `audit.views` are the blueprints; `cluster` reads the cluster by
PromQL, `task_events` turns task events on and off, `event_listener` reads events. `openapi` is the document and its
page.
"""
