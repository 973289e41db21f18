"""The pages for those who come from another tool name only what there is; `tests/demo` runs their commands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import promql_parser
import pytest
from tests.rules.promql import selectors
from tools.docs.markdown import ROOT

from celerymeter.cli import group
from celerymeter.cli.command import all_commands
from celerymeter.metrics import CATALOGUE, COMPATIBLE

PAGES = sorted((ROOT / "deploy" / "migration").glob("*.md"))
FLOWER, THEIRS = "from-flower.md", "from-celery-exporter.md"
OTHERS_OPTIONS = {
    FLOWER: {"enable_events", "max_tasks", "persistent", "purge_offline_workers", "read_only"},
    THEIRS: {
        *("accept-content", "broker-ssl-option", "broker-transport-option", "buckets", "host", "metric-prefix", "port"),
        *("generic-hostname-task-sent-metric", "purge-offline-worker-metrics", "redbeat-", "retry-interval"),
        *("static-label", "worker-timeout"),
    },
}
"""Options of the other tool that the page speaks of."""


@pytest.fixture(params=PAGES, ids=lambda path: path.stem)
def page(request: pytest.FixtureRequest) -> Path:
    """One of the pages."""
    assert isinstance(request.param, Path)
    return request.param


def our_options() -> set[str]:
    """Every option of every command, without its dashes."""
    commands = all_commands(click.Context(group))
    flags = (flag for command in commands for option in command.options() for flag in (*option.opts, "--help"))
    return {flag.lstrip("-") for flag in flags}


def test_every_option_is_ours_or_the_other_tool_s(page: Path) -> None:
    """A renamed one is found here."""
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z_.-]+)", page.read_text()))
    assert OTHERS_OPTIONS[page.name] <= named
    assert named - OTHERS_OPTIONS[page.name] - our_options() == set()


def test_every_metric_is_there(page: Path) -> None:
    """Of ours each is in the catalogue, or among the families of --compat."""
    known = {family.name for family in (*CATALOGUE, *COMPATIBLE)}
    named = set(re.findall(r"`((?:celery|celerymeter)_[a-z_]+)`", page.read_text()))
    assert named - known == set()


def test_every_query_reads_what_there_is(page: Path) -> None:
    """Parsed, and each of its series is in the catalogue."""
    queries = re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL)
    names = {selector.name for query in queries for selector in selectors(query)}
    assert queries
    assert all(promql_parser.parse(query) for query in queries)
    assert names <= {family.name for family in CATALOGUE}


def test_every_path_of_the_control_api_is_one() -> None:
    """With its method, as the description for programs has it."""
    described = json.loads((ROOT / "exporter/openapi.json").read_text())["paths"]
    text = (ROOT / "deploy/migration" / FLOWER).read_text()
    named = set(re.findall(r"(GET|POST) (/celery-admin/[a-z_/{}]+)", text))
    assert named
    assert [path for method, path in named if method.lower() not in described.get(path, {})] == []


def test_every_link_into_the_repository_leads_somewhere(page: Path) -> None:
    """A file that is there."""
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


def links(page: Path) -> Iterator[str]:
    """Targets of links that stay here."""
    yield from re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
