"""``celerymeter revoke``, against an API whose answers are known."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import requests
import responses

from celerymeter.cli import main

URL = "http://127.0.0.1:8000/celery-admin/tasks/batch"


def reply(status: str, *, settled: bool, successful: int = 0) -> dict[str, object]:
    """The API's answer about one task."""
    result = {"task_id": "t-1", "status": status, "detail": "words", "worker": "a@t", "name": None, "state": None}
    counts = {"total": 1, "successful": successful, "failed": 0, "unverified": 1 - successful}
    return {**counts, "summary": f"1 {status}", "settled": settled, "results": [result], "batch_id": "b1"}


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A file with a token."""
    path = tmp_path / "token"
    path.write_text("the-token\n")
    return path


def revoke(token: Path, *words: str) -> int:
    """Call the command."""
    return main(["revoke", "--control-url", "http://127.0.0.1:8000", "--token-file", str(token), *words])


@responses.activate
def test_it_follows_until_all_is_settled(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With progress on stderr and a table on stdout."""
    asked = responses.post(URL, json=reply("terminate_sent", settled=False))
    responses.get(f"{URL}/b1", json=reply("terminated", settled=True, successful=1))
    assert revoke(token, "--id", "t-1", "--terminate", "--reason", "why") == 0
    out, err = capsys.readouterr()
    assert err.splitlines() == ["0 of 1 settled (1 terminate_sent)"]
    assert out.splitlines()[0].split() == ["TASK", "STATUS", "WORKER", "DETAIL"]
    assert out.splitlines()[1].split() == ["t-1", "terminated", "a@t", "words"]
    assert out.splitlines()[2].startswith("total 1: 1 successful, 0 failed, 0 unverified")
    request = asked.calls[0].request
    assert request.headers["Authorization"] == "Bearer the-token"
    assert json.loads(request.body or "")["parameters"]["reason"] == "why"


@responses.activate
def test_what_is_not_proven_is_no_success(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, and the API goes on alone."""
    responses.post(URL, json=reply("flagged_unknown", settled=False))
    assert revoke(token, "--id", "t-1", "--wait", "0s", "--format", "json") == 1
    assert json.loads(capsys.readouterr().out)["batch_id"] == "b1"


@responses.activate
def test_progress_is_reported_when_there_is_some(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not at every look; what is open at the end is said with where to look again."""
    responses.post(URL, json=reply("terminate_sent", settled=False))
    responses.get(f"{URL}/b1", json=reply("terminate_sent", settled=False))
    assert revoke(token, "--id", "t-1", "--wait", "1200ms") == 1
    assert len(responses.calls) > 2
    assert capsys.readouterr().err.splitlines() == [
        "0 of 1 settled (1 terminate_sent)",
        f"not settled yet, the control API continues; for later results see GET {URL}/b1",
    ]


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (KeyboardInterrupt(), "the control API continues the revoke"),
        (requests.ConnectionError(), f"no connection to {URL.removesuffix('/tasks/batch')}; check --control-url"),
    ],
)
@responses.activate
def test_what_is_known_is_shown_when_the_rest_cannot_be(
    happens: BaseException, said: str, token: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody presses ^C, or the API goes away while it is asked again."""
    responses.post(URL, json=reply("flagged", settled=False, successful=1))

    def look(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        raise happens

    responses.add_callback("GET", f"{URL}/b1", look)
    assert revoke(token, "--id", "t-1") == 0
    out, err = capsys.readouterr()
    assert said in err
    assert out.splitlines()[1].split() == ["t-1", "flagged", "a@t", "words"]


@responses.activate
def test_what_is_no_control_api_is_named(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its status: another server listens there, or a proxy has no control API."""
    for status in (200, 404):
        responses.upsert("POST", URL, body="<html>", status=status)
        assert revoke(token, "--id", "t-1") == 1
        said = f"is not a control API (HTTP {status}); check --control-url"
        assert said in capsys.readouterr().err


@responses.activate
def test_a_refusal_is_one_line(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the API's words, without the token."""
    responses.post(URL, status=503, json={"detail": "no worker is alive", "code": "no_workers"})
    assert revoke(token, "--id", "t-1") == 1
    line = capsys.readouterr().err
    assert "no worker is alive" in line
    assert "the-token" not in line


def test_without_an_id_it_says_so(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, as for every wrong setting."""
    assert revoke(token) == 2
    assert "--id" in capsys.readouterr().err


@responses.activate
def test_an_id_cannot_write_into_a_terminal(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a task, whatever is in it."""
    answer = reply("invalid", settled=True)
    answer["results"] = [{"task_id": "a\n\x1b[2Jb", "status": "invalid", "detail": "not an id", "worker": None}]
    responses.post(URL, json=answer)
    assert revoke(token, "--id", "t-1") == 1
    assert capsys.readouterr().out.splitlines()[1].split() == [r"a\n\x1b[2Jb", "invalid", "-", "not", "an", "id"]


@responses.activate
def test_wrong_fields_are_named(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first five, at a length that a terminal shows."""
    errors = [{"pointer": f"/task_ids/{number}", "message": "no" * 1000} for number in range(7)]
    errors[0] = {"pointer": "/parameters/reason", "message": "String should have at most 1000 characters"}
    detail = "7 fields of the request are wrong: see errors"
    responses.post(URL, status=422, json={"detail": detail, "code": "invalid", "errors": errors})
    assert revoke(token, "--id", "t-1") == 1
    line = capsys.readouterr().err
    assert "are wrong: /parameters/reason: String should have at most 1000 characters; /task_ids/1: no" in line
    assert line.endswith("; and 2 more\n")
    assert len(line) < 2000


@responses.activate
@pytest.mark.parametrize("pasted", ["t-1 ", "\tt-1\r", "\u00a0t-1\n"])
def test_blanks_around_an_id_are_left_out(token: Path, pasted: str) -> None:
    """They come with what is pasted."""
    asked = responses.post(URL, json=reply("revoked", settled=True, successful=1))
    assert revoke(token, "--id", pasted) == 0
    assert json.loads(asked.calls[0].request.body or "")["task_ids"] == ["t-1"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "--id: must not be empty"),
        ("..", "--id: '..' is not an id"),
        ("a\u200bb", r"--id: character 2 is '\u200b'"),
        ("a b", "--id: character 2 is ' '"),
        ("\udcff", r"--id: character 1 is '\udcff'"),
        ("x" * 256, "--id: has 256 characters; an id has at most 255"),
    ],
)
def test_what_is_no_id_is_not_sent(token: Path, given: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the character."""
    assert revoke(token, "--id", given) == 2
    assert said in capsys.readouterr().err


IDS = "\ufeff# from the log\r\nt-1\r\n\r\n  t-2  \n"


@responses.activate
def test_ids_may_come_from_a_file(token: Path, tmp_path: Path) -> None:
    """One a line, in addition to those of options."""
    asked = responses.post(URL, json=reply("revoked", settled=True, successful=1))
    (tmp_path / "ids").write_text(IDS)
    assert revoke(token, "--id", "t-0", "--ids-file", str(tmp_path / "ids")) == 0
    assert json.loads(asked.calls[0].request.body or "")["task_ids"] == ["t-0", "t-1", "t-2"]


@responses.activate
def test_ids_may_come_from_stdin(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `grep -o … | celerymeter revoke --ids-file -`."""
    asked = responses.post(URL, json=reply("revoked", settled=True, successful=1))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(IDS.encode())))
    assert revoke(token, "--ids-file", "-") == 0
    assert json.loads(asked.calls[0].request.body or "")["task_ids"] == ["t-1", "t-2"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"t-1\nt 2\n", " line 2: character 2 is ' '"),
        (b"# none\n", " has no ids"),
        (b"\xff\xfe", " is not UTF-8 text"),
        (b"x\n" * 2**20, " is too long: it may have 1024 KiB"),
        (None, "cannot read "),
    ],
)
def test_a_file_with_a_wrong_id_is_refused(
    token: Path, tmp_path: Path, content: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a whole: nothing is sent."""
    if content is not None:
        (tmp_path / "ids").write_bytes(content)
    assert revoke(token, "--ids-file", str(tmp_path / "ids")) == 2
    assert said in capsys.readouterr().err
