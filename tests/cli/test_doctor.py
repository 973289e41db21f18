"""``celerymeter doctor`` as a command: its exit status and its output."""

from __future__ import annotations

import json

import pytest

from .conftest import Run

NOWHERE = "redis://:hush@127.0.0.1:1/0"


def test_a_fault_is_a_line_and_exit_status_1(run: Run) -> None:
    """It goes to stdout, without the password; without a terminal no progress is shown."""
    outcome = run("doctor", "--broker-url", NOWHERE)
    assert (outcome.status, outcome.err) == (1, "")
    assert outcome.out.startswith("FAULT broker-refused: cannot use the broker redis://:***@127.0.0.1:1/0: ")
    assert outcome.out.count("\n") == 2


def test_json_is_for_programs(run: Run) -> None:
    """The findings are in one object."""
    outcome = run("doctor", "--broker-url", NOWHERE, "--format", "json")
    assert outcome.status == 1
    assert json.loads(outcome.out)["findings"][0]["code"] == "broker-refused"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--broker-url: missing"),
        (["--broker-url", "sqs://"], "sqs"),
        (["--broker-url", NOWHERE, "--selector", "nonsense"], "selector"),
        (["--broker-url", NOWHERE, "--exporter-url", "localhost"], "--exporter-url: the value is not a URL"),
    ],
)
def test_a_wrong_setting_is_exit_status_2(run: Run, words: list[str], says: str) -> None:
    """This is so for every command."""
    outcome = run("doctor", *words)
    assert outcome.status == 2
    assert says in outcome.err
    assert outcome.err.count("\n") == 1
