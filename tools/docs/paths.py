"""The table of the control API's paths, from its OpenAPI description."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from tools.docs.markdown import ROOT, table

_ROLE = re.compile(r"Needs the role (\w+)")


def paths(_: str) -> str:
    """Return every operation of the control API with the lowest role that may call it."""
    described = json.loads((ROOT / "exporter" / "openapi.json").read_text())
    rows = [
        (f"`{method.upper()} {path}`", _role(operation), operation["summary"])
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    return table(("request", "role", "what it does"), rows)


def _role(operation: Mapping[str, object]) -> str:
    if found := _ROLE.search(str(operation.get("description", ""))):
        return found[1]
    security = operation.get("security")
    if isinstance(security, list) and "webhook" in security[0]:
        return "`--webhook-token-file`"
    return "viewer" if operation["operationId"] == "open_feed" else "-"
