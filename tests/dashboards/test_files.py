"""The committed dashboards: what Grafana needs of them, and what this project promises about them."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import promql_parser
import pytest
import yaml
from tests.dashboards.grafana import FOLDER, Board, Panel, boards, names_in
from tests.rules.bundle import Alert, alerts
from tests.rules.promql import labels_of
from tests.rules.schema import series

BOARDS = boards()
UIDS = {f"celerymeter-{name}" for name in ("overview", "tasks", "queues", "workers", "schedules", "exporter")}
PACKAGE = FOLDER.parent / "celerymeter_dashboards"
PROVISIONING = FOLDER.parent / "provisioning"
with_sdk = pytest.mark.filterwarnings("ignore:Prefer using dashboardv2")
"""File provisioning refuses the newer model that the SDK recommends, so the classic one it is."""
since_3_11 = pytest.mark.skipif(sys.version_info < (3, 11), reason="the SDK needs Python 3.11")
every_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)


def everything() -> Iterator[tuple[Board, Panel]]:
    """Each panel of each dashboard."""
    return ((board, panel) for board in BOARDS for panel in board.drawn)


every_panel = pytest.mark.parametrize(
    ("board", "panel"), [pytest.param(b, p, id=f"{b.name}-{p.title}") for b, p in everything()]
)


@with_sdk
@since_3_11
def test_the_files_are_what_the_code_makes(tmp_path: Path) -> None:
    """Committed and regenerated dashboards are the same, none too many and none missing."""
    from celerymeter_dashboards.__main__ import write

    write(tmp_path)

    generated = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert generated == {path.name: path.read_text() for path in FOLDER.iterdir()}, "run `make generate`"


@with_sdk
@since_3_11
@every_board
def test_a_file_fits_the_types_of_grafana(board: Board) -> None:
    """Read into the SDK's types, which are generated from Grafana's schema, and written again, nothing is lost."""
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    from celerymeter_dashboards.document import text

    register_default_plugins()

    assert json.loads(text(Dashboard.from_json(json.loads(board.path.read_text())))) == board.raw


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_every_function_is_called(path: Path) -> None:
    """A function that returns a panel which no `line(…)` holds would change nothing."""
    source = path.read_text()
    private = re.findall(r"^def (_\w+)", source, re.MULTILINE)
    unused = [name for name in private if len(re.findall(rf"\b{name}\b", source)) == 1]
    assert not unused, (
        f"call {', '.join(unused)} in a line(…) of grafana/celerymeter_dashboards/{path.name}, or remove it"
    )


def test_there_are_six_with_the_uids_that_alerts_link_to() -> None:
    """Uids are promises: alerts, bookmarks and the control API link to them."""
    assert {board.uid for board in BOARDS} == UIDS
    assert len({board.raw["title"] for board in BOARDS}) == len(UIDS)


@every_board
def test_a_dashboard_is_small_and_live(board: Board) -> None:
    """At most 20 panels, refreshed every 5 seconds, at the SDK's schema version, without an id of some database."""
    assert len(board.drawn) <= 20, f"remove a panel in grafana/celerymeter_dashboards/{board.name}.py"
    assert board.raw["refresh"] == "5s"
    assert board.raw["schemaVersion"] >= 42
    assert "id" not in board.raw


@every_board
def test_panels_have_ids_of_their_own_and_do_not_overlap(board: Board) -> None:
    """Every panel has its own id and its own place on the 24 columns."""
    assert not [number for number, uses in Counter(panel.id for panel in board.panels).items() if uses > 1]
    assert not [panel.title for panel in board.panels if panel.box[0] + panel.box[2] > 24]
    assert not [(a.title, b.title) for a, b in combinations(board.panels, 2) if _overlap(a, b)]


def _overlap(a: Panel, b: Panel) -> bool:
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.box, b.box
    return ax < bx + bw and bx < ax + aw and ay < by + bh and by < ay + ah


@every_panel
def test_a_panel_explains_itself(board: Board, panel: Panel) -> None:
    """It has a title, a description in a sentence, a unit, and words for when there is nothing to show."""
    assert panel.title
    assert panel.raw["description"].endswith(".")
    assert panel.defaults["unit"]
    assert panel.defaults["noValue"].endswith(".")


def test_a_chart_has_gaps_where_nothing_was_measured() -> None:
    """No chart connects the points on both sides of a gap."""
    charts = [panel for _, panel in everything() if panel.raw["type"] == "timeseries"]
    assert [panel.defaults["custom"].get("spanNulls") for panel in charts] == [False] * len(charts) != []


@every_panel
def test_queries_of_a_panel_are_told_apart(board: Board, panel: Panel) -> None:
    """Each query has a letter of its own and asks the chosen data source."""
    assert len({query.ref for query in panel.queries}) == len(panel.queries) > 0
    assert {target["datasource"]["uid"] for target in panel.raw["targets"]} == {"${datasource}"}


@every_board
def test_a_title_is_used_once(board: Board) -> None:
    """Two panels of one dashboard can be told apart by their titles."""
    assert not [title for title, uses in Counter(panel.title for panel in board.drawn).items() if uses > 1]


@every_board
def test_declared_variables_are_used_and_used_ones_declared(board: Board) -> None:
    """No variable is there for nothing, and none is missing."""
    parts = [*(panel.raw for panel in board.panels), *board.annotations]
    used = names_in(json.dumps(parts))
    declared = set(board.variables)

    assert used == declared


@every_board
def test_a_choice_may_be_of_several_values_or_all(board: Board) -> None:
    """Each list of values allows several and All, and is matched by a regular expression, never by equality."""
    lists = {name: variable for name, variable in board.variables.items() if variable["type"] == "query"}

    assert all(
        variable["multi"] and variable["includeAll"] and variable["allValue"] == ".*" for variable in lists.values()
    )
    exact = re.compile(rf"""=\s*\\?"\$\{{?(?:{"|".join(lists)})\b""")
    assert not exact.search(json.dumps(board.raw["panels"]))


@every_panel
def test_limits_are_drawn_from_the_threshold_series(board: Board, panel: Panel) -> None:
    """No number in a file decides what is good: thresholds are series, and every dashed line is one of them."""
    assert not [step for step in panel.defaults.get("thresholds", {}).get("steps", []) if step.get("value") is not None]
    dashed = [ref for ref, options in panel.overrides("byFrameRefID") if "custom.lineStyle" in options]
    for query in panel.queries:
        if query.ref in dashed:
            assert ":effective" in query.expr or "visibility_timeout" in query.expr


@every_board
def test_links_resolve(board: Board) -> None:
    """Links lead to dashboards that exist, and carry the time, the data source and variables that exist there."""
    others = {other.uid: other for other in BOARDS}
    for panel in board.drawn:
        for url in panel.links:
            if not url.startswith("/d/celerymeter-$"):
                uid, _, query = url.removeprefix("/d/").partition("?")
                if url.startswith("/d/"):
                    carried = set(re.findall(r"var-(\w+)=", query)) | set(re.findall(r"\{(\w+):queryparam\}", query))
                    assert {"datasource", "job", "cluster"} <= carried <= set(others[uid].variables), panel.title
                    assert "${__url_time_range}" in query


@every_panel
def test_links_use_fields_that_the_panel_has(board: Board, panel: Panel) -> None:
    """A link that takes a queue, task or worker from its row or series finds it there."""
    for url in panel.links:
        for label in re.findall(r"__(?:data\.fields|field\.labels)\.(\w+)", url):
            assert all(f"{label}" in query.expr for query in panel.queries if query.ref == "A"), panel.title


@every_board
def test_dashboards_link_to_each_other(board: Board) -> None:
    """The menu at the top holds all dashboards with the common tag and keeps variables and time."""
    menu = board.raw["links"][0]

    assert "celerymeter" in board.raw["tags"]
    assert (menu["type"], menu["tags"]) == ("dashboards", ["celerymeter"])
    assert menu["includeVars"]
    assert menu["keepTime"]


def test_every_number_of_the_overview_leads_to_its_explanation() -> None:
    """A click on a number opens the dashboard that explains it."""
    overview = next(board for board in BOARDS if board.name == "overview")
    numbers = [panel for panel in overview.drawn if panel.type == "stat"]

    assert len(numbers) == 8
    assert all(re.match(r"/d/celerymeter-(?!overview)", next(panel.links)) for panel in numbers)


def test_the_overview_begins_with_what_an_operator_asks_first() -> None:
    """Health, workers, pending tasks and throughput stand on the first screen, 20 rows high."""
    overview = next(board for board in BOARDS if board.name == "overview")
    first = {panel.title for panel in overview.drawn if panel.box[1] + panel.box[3] <= 20}

    assert {"Health", "Active workers", "Pending tasks", "Throughput", "Can I trust this page?"} <= first


@every_board
def test_the_first_row_answers(board: Board) -> None:
    """A dashboard begins with numbers; charts and tables that explain them follow."""
    top = [panel for panel in board.drawn if panel.box[1] == 0]

    assert {panel.type for panel in top} == {"stat"}


def test_a_task_leads_to_its_reports() -> None:
    """The tasks table links to the control API, whose address is a variable."""
    tasks = next(board for board in BOARDS if board.name == "tasks")

    reports = [url for url in tasks.panel("Tasks").links if "/monitoring/reports" in url]

    assert reports == ["${control}/monitoring/reports?task=${__data.fields.name:percentencode}"]
    assert tasks.variables["control"]["query"].endswith("/celery-admin")


def test_a_link_that_needs_a_token_says_so() -> None:
    """A browser shows no token by itself: the link, the panel and the variable warn before the click."""
    tasks = next(board for board in BOARDS if board.name == "tasks")
    links = next(options["links"] for name, options in tasks.panel("Tasks").overrides("byName") if name == "name")

    assert ["token" in link["title"] for link in links] == ["/monitoring/" in link["url"] for link in links]
    assert "token" in tasks.panel("Tasks").raw["description"]
    assert "token" in tasks.variables["control"]["description"]


@pytest.mark.parametrize("alert", alerts(), ids=str)
def test_an_alert_leads_to_a_dashboard_that_exists(alert: Alert) -> None:
    """Its row leads by the task or queue that it is about, or else by its area."""
    overview = next(board for board in BOARDS if board.name == "overview")
    (url,) = overview.panel("Firing alerts").links
    subjects = {"name", "queue_name", "schedule"} & labels_of(promql_parser.parse(alert.expr), series)
    area = alert.labels["area"].replace("control", "exporter")

    assert url.startswith("/d/celerymeter-${__data.fields.leads_to}?")
    assert subjects or f"celerymeter-{area}" in UIDS


@every_board
def test_charts_are_marked_with_alerts_and_restarts(board: Board) -> None:
    """Alerts that begin to fire, workers that come and go, and deployments are annotations on every dashboard."""
    names = [one["name"] for one in board.annotations]
    assert names == ["Alert fires", "Worker stops", "Worker starts", "Deployment"]


@every_board
def test_a_picture_shows_it(board: Board) -> None:
    """Each dashboard has a picture for the README, small enough for a repository."""
    assert 0 < (FOLDER.parent / "pictures" / f"{board.name}.png").stat().st_size <= 250_000


def test_grafana_finds_everything_by_itself() -> None:
    """The provisioned data source is the default one, and the provider reads the folder that the comments name."""
    sources = yaml.safe_load((PROVISIONING / "datasources" / "celerymeter.yml").read_text())["datasources"]
    providers = yaml.safe_load((PROVISIONING / "dashboards" / "celerymeter.yml").read_text())["providers"]

    assert [(source["type"], source["isDefault"]) for source in sources] == [("prometheus", True)]
    assert sources[0]["jsonData"]["timeInterval"] == "10s"
    assert [provider["type"] for provider in providers] == ["file"]
    assert providers[0]["options"]["path"] == "/var/lib/grafana/dashboards/celerymeter"
