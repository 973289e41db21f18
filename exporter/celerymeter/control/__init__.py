"""The control API. `server` serves what `app` makes of the parts that `compose` builds.

Before every view stand `guard`, `auth`, `keys`, `throttle` and `addresses`; `routing` is how views are written and
`problems` how they refuse. `store` is the state directory, `instances` who shares it, `audit` the trail in it.
`system`, `monitoring`, `feed`, `notifications` and `audit.views` are the areas of the API; `live` looks at the cluster
by PromQL, `switching` turns task events on and off, `tap` hears events. `openapi` is the document and its page.
"""
