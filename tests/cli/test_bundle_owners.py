"""``celerymeter bundle owners``: one file in, relabeling out, and a clear word for a wrong file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from celerymeter.demo.parts import shipped

from .conftest import Run

WRONG = {
    "no file": (None, "cannot read {file}: No such file or directory"),
    "not YAML": ("owners: [", "{file} line 1: not YAML: expected the node content, but found '<stream end>'"),
    "not text": ("\udcff", "{file} is not UTF-8 text"),
    "a list": ("[]", "{file} must be a mapping"),
    "a misspelt key": ("owner: {}", "{file}: unknown key owner; known are default, owners"),
    "no list of owners": ("owners: {}", "{file}: owners must be a list"),
    "a name for an entry": ("owners: [a]", "{file}: owners[0] must be a mapping"),
    "nothing that is owned": ("owners: [{owner: a}]", "{file}: owners[0] needs an owner, and queues or tasks"),
    "nobody": ("owners: [{queues: [a]}]", "{file}: owners[0] needs an owner, and queues or tasks"),
    "a misspelt key of an entry": (
        "owners: [{owner: a, queue: [b]}]",
        "{file}: owners[0]: unknown key queue; known are clusters, owner, queues, tasks",
    ),
    "a queue that is no list": (
        "owners: [{owner: a, queues: b}]",
        "{file}: owners[0].queues must be a list of names, in which * stands for anything",
    ),
    "a number": (
        "owners: [{owner: a, tasks: [1]}]",
        "{file}: owners[0].tasks must be a list of names, in which * stands for anything",
    ),
    "an empty name": (
        "owners: [{owner: a, queues: ['']}]",
        "{file}: owners[0].queues must be a list of names, in which * stands for anything",
    ),
    "an owner that Prometheus would expand": (
        "owners: [{owner: $1, queues: [b]}]",
        "{file}: owners[0].owner must be a name of letters, digits and . _ - @",
    ),
    "a default that is a list": ("default: [a]", "{file}: default must be a name of letters, digits and . _ - @"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_with_the_place(text: str | None, message: str, run: Run, tmp_path: Path) -> None:
    """In one line, with exit status 2."""
    file = tmp_path / "owners.yml"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
    outcome = run("bundle", "owners", file)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == f"celerymeter: {message.format(file=file)}\n"


def test_the_shipped_example_is_right(run: Run) -> None:
    """The default comes first, since the last relabeling that matches counts."""
    outcome = run("bundle", "owners", shipped("alerts") / "owners.yml")
    assert outcome.status == 0, outcome.err
    made = yaml.safe_load(outcome.out)
    assert [each["replacement"] for each in made] == ["platform", "media", "payments", "payments"]
    assert {each["target_label"] for each in made} == {"owner"}


def test_without_entries_nobody_owns_anything(run: Run, tmp_path: Path) -> None:
    """An empty list is a list."""
    (tmp_path / "owners.yml").write_text("owners: []")
    outcome = run("bundle", "owners", tmp_path / "owners.yml")
    assert (outcome.status, yaml.safe_load(outcome.out)) == (0, [])


def test_an_entry_that_owns_nothing_is_refused(run: Run, tmp_path: Path) -> None:
    """Whoever wrote it expects to get alerts."""
    (tmp_path / "owners.yml").write_text("owners: [{owner: team, queues: []}]")
    outcome = run("bundle", "owners", tmp_path / "owners.yml")
    assert (outcome.status, "owners[0] owns nothing" in outcome.err) == (2, True)
