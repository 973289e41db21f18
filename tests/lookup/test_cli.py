"""``celerymeter task``, against an API whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests
import responses

from celerymeter.cli import main, task

URL = "http://127.0.0.1:8000/celery-admin/tasks"


def reply(verdict: str, *, final: bool = False, outcome: str | None = None) -> dict[str, object]:
    """Return the API's answer."""
    run = {"worker": "a@t", "started": "2026-01-01T00:00:00Z", "ended": None, "outcome": outcome, "exception": "Oops"}
    return {
        "task_id": "t-1",
        "verdict": verdict,
        "final": final,
        "name": "shop.pay\x1b[2J",
        "sentence": {"en": f"It is {verdict}.", "zh-TW": f"[{verdict}]"},
        "runs": [run] if outcome else [],
        "evidence": [{"source": "workers", "says": "1 answered", "asked_at": None}],
        "not_asked": [{"source": "result backend", "reason": "no --result-backend-url is given"}],
        "unreachable": [{"source": "prometheus", "reason": "it does not answer"}],
    }


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A file with a token."""
    path = tmp_path / "token"
    path.write_text("the-token\n")
    return path


def ask(token: Path, *words: str, task_id: str = "t-1") -> int:
    """Call the command."""
    return main(["task", task_id, "--control-url", "http://127.0.0.1:8000", "--token-file", str(token), *words])


@responses.activate
def test_it_says_where_the_task_is_and_what_shows_it(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in an answer writes into the terminal."""
    asked = responses.get(f"{URL}/t-1", json=reply("running", outcome="running"))
    assert ask(token) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("running  shop.pay")
    assert "\x1b" not in lines[0]
    assert lines[1:] == [
        "It is running.",
        "  run at a@t: running (Oops), 2026-01-01T00:00:00Z to ?",
        "  workers: 1 answered",
        "  result backend: not asked: no --result-backend-url is given",
        "  prometheus: no answer: it does not answer",
    ]
    assert asked.calls[0].request.headers["Authorization"] == "Bearer the-token"


@responses.activate
def test_what_is_not_known_is_exit_status_1(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the language that was asked for."""
    responses.get(f"{URL}/t-1", json=reply("unknown"))
    assert ask(token, "--lang", "zh-TW") == 1
    assert capsys.readouterr().out.splitlines()[1] == "[unknown]"


@responses.activate
@pytest.mark.parametrize(("end", "status"), [("succeeded", 0), ("failed", 1)])
def test_it_follows_until_the_end(
    token: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, end: str, status: int
) -> None:
    """Each change once."""
    monkeypatch.setattr(task, "POLL_INTERVAL", 0.0)
    for each in (reply("queued"), reply("queued"), reply("running", outcome="running")):
        responses.get(f"{URL}/t-1", json=each)
    responses.get(f"{URL}/t-1", json=reply(end, final=True, outcome=end))
    assert ask(token, "--follow", "--format", "json") == status
    said = [json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()]
    assert said == ["queued", "running", end]


@responses.activate
def test_an_odd_id_stays_in_its_place(token: Path) -> None:
    """A slash or a question mark in it is no path and no query."""
    asked = responses.get(f"{URL}/a%2Fb%3Fc", json=reply("unknown"))
    assert ask(token, task_id="a/b?c") == 1
    assert len(asked.calls) == 1


@responses.activate
def test_a_refusal_is_one_line(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the API's own words."""
    responses.get(f"{URL}/t-1", status=429, json={"detail": "too many look-ups"})
    assert ask(token) == 1
    assert capsys.readouterr().err == "celerymeter: the control API refused (HTTP 429): too many look-ups\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [("", "ID: must not be empty"), (".", "ID: '.' is not an id"), ("\udcff", r"ID: character 1 is '\udcff'")],
)
def test_what_is_no_id_is_not_asked_for(token: Path, given: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A dot would ask for another page of the API."""
    assert ask(token, task_id=given) == 2
    assert said in capsys.readouterr().err


@responses.activate
def test_blanks_around_an_id_are_left_out(token: Path) -> None:
    """They come with what is pasted."""
    responses.get(f"{URL}/t-1", json=reply("running"))
    assert ask(token, task_id="t-1 \r\n") == 0


@responses.activate
def test_it_follows_an_api_that_restarts(
    token: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one line for each time that it is away, and a proxy before it or none."""
    monkeypatch.setattr(task, "POLL_INTERVAL", 0.0)
    responses.get(f"{URL}/t-1", json=reply("running"))
    responses.get(f"{URL}/t-1", body=requests.ConnectionError())
    responses.get(f"{URL}/t-1", status=502, body="<html>")
    responses.get(f"{URL}/t-1", json=reply("succeeded", final=True))
    assert ask(token, "--follow") == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines() if "shop.pay" in line] == ["running", "succeeded"]
    assert err.count("asking again for 60 s") == err.count("\n") == 1


@responses.activate
@pytest.mark.parametrize("before", [0, 1])
def test_an_api_that_stays_away_is_given_up(token: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    """At once if it never answered: the URL may be wrong."""
    monkeypatch.setattr(task, "POLL_INTERVAL", 0.0)
    monkeypatch.setattr(task, "RESTART_TIMEOUT", 0.0 if before else 60.0)
    for _ in range(before):
        responses.get(f"{URL}/t-1", json=reply("running"))
    responses.get(f"{URL}/t-1", body=requests.ConnectionError())
    assert ask(token, "--follow") == 1


@responses.activate
def test_lines_around_a_token_are_left_out(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file with two tokens is none, and is not shown."""
    asked = responses.get(f"{URL}/t-1", json=reply("running"))
    token.write_text("\n  the-token \r\n\n")
    assert ask(token) == 0
    assert asked.calls[0].request.headers["Authorization"] == "Bearer the-token"
    token.write_text("a-token\nanother\n")
    assert ask(token) == 2
    assert f"--token-file: {token}: the value is not a token on one line" in capsys.readouterr().err
