"""The committed dashboards as Grafana reads them: panels, queries and variables, with the variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"
ALL = "$__all"
TOKEN = re.compile(r"\$\{(?P<braced>\w+)(?:\.[\w]+)*(?::\w+)?\}|\$(?P<bare>[A-Za-z_]\w*)")
_SPECIAL = re.compile(r"[$^*{}\[\]'+?.()|]")

Json = dict[str, Any]  # a document of another program: read here, and handed on as the values below


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel."""

    panel: str
    ref: str
    expr: str
    instant: bool
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; ``box`` is left, top, width and height on the grid."""

    id: int
    title: str
    type: str
    box: tuple[int, int, int, int]
    queries: tuple[Query, ...]
    raw: Json

    @property
    def defaults(self) -> Json:
        """Its field options."""
        found: Json = self.raw.get("fieldConfig", {}).get("defaults", {})
        return found

    @property
    def links(self) -> Iterator[str]:
        """The addresses of every link on its values."""
        found = list(self.defaults.get("links", []))
        for override in self.raw.get("fieldConfig", {}).get("overrides", []):
            for option in override["properties"]:
                found += option["value"] if option["id"] == "links" else []
        return (link["url"] for link in found)

    def overrides(self, matcher: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what each override of this matcher applies to, and its options."""
        for override in self.raw.get("fieldConfig", {}).get("overrides", []):
            if override["matcher"]["id"] == matcher:
                yield (
                    override["matcher"]["options"],
                    {option["id"]: option["value"] for option in override["properties"]},
                )


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    path: Path
    uid: str
    panels: tuple[Panel, ...]
    raw: Json

    @property
    def name(self) -> str:
        return self.uid.removeprefix("celerymeter-")

    @property
    def drawn(self) -> list[Panel]:
        """The panels but for the headings of rows."""
        return [panel for panel in self.panels if panel.type != "row"]

    @property
    def variables(self) -> dict[str, Json]:
        return {variable["name"]: variable for variable in self.raw["templating"]["list"]}

    @property
    def annotations(self) -> list[Json]:
        return [one for one in self.raw["annotations"]["list"] if not one.get("builtIn")]

    def panel(self, title: str) -> Panel:
        """The panel of this title."""
        return next(panel for panel in self.panels if panel.title == title)


def boards() -> list[Board]:
    """Every committed dashboard."""
    return [_board(path) for path in sorted(FOLDER.glob("*.json"))]


def _board(path: Path) -> Board:
    raw = json.loads(path.read_text())
    return Board(path, raw["uid"], tuple(_panel(panel) for panel in raw["panels"]), raw)


def _panel(raw: Json) -> Panel:
    position = raw["gridPos"]
    box = (position.get("x", 0), position.get("y", 0), position["w"], position["h"])
    queries = tuple(
        Query(
            raw["title"], target["refId"], target["expr"], bool(target.get("instant")), target.get("legendFormat", "")
        )
        for target in raw.get("targets", [])
    )
    return Panel(raw["id"], raw["title"], raw["type"], box, queries, raw)


def names_in(text: str) -> set[str]:
    """The variables that a text refers to, but for Grafana's own."""
    found = {match["braced"] or match["bare"] for match in TOKEN.finditer(text)}
    return {name for name in found if not name.startswith("__")}


def fill(text: str, values: Mapping[str, tuple[str, ...]]) -> str:
    """A query with the variables replaced as Grafana does it for Prometheus: All, one value, or several."""

    def chosen(match: re.Match[str]) -> str:
        picked = values[match["braced"] or match["bare"]]
        if picked == (ALL,):
            return ".*"
        escaped = [_SPECIAL.sub(lambda char: "\\\\" + char[0], value) for value in picked]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"

    return TOKEN.sub(chosen, text)
