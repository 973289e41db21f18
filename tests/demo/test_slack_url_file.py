"""The file that holds the URL of Slack's webhook: errors are found before anything is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from celerymeter.cli import main
from celerymeter.cli.demo import command

SECRET = "T0/B0/hush"


def refused(path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the line with which a demo refuses to start; it has written nothing."""
    monkeypatch.chdir(folder)
    assert main(["demo", "--slack-url-file", str(path)]) == 2
    assert not (folder / ".demo").exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory"),
        ("", "is empty"),
        ("\n", "is empty"),
        (f"hooks.slack.com/services/{SECRET}", "does not hold an http(s) URL"),
        (f"ftp://hooks.slack.com/services/{SECRET}", "does not hold an http(s) URL"),
        (f"https:///{SECRET}", "does not hold an http(s) URL"),
        (f"https://[{SECRET}", "does not hold an http(s) URL"),
        (
            f"https://hooks.slack.com/services/{SECRET}\nhttps://hooks.slack.com/services/{SECRET}",
            "does not hold an http(s) URL",
        ),
    ],
)
def test_a_file_without_a_url_is_refused_with_advice(
    content: str | None,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message does not quote the file."""
    file = tmp_path / "slack_url"
    if content is not None:
        file.write_text(content)
    said = refused(file, tmp_path, capsys, monkeypatch)
    assert "--slack-url-file: " in said
    assert says in said
    assert "create an incoming webhook (https://api.slack.com/messaging/webhooks)" in said
    assert SECRET not in said


def test_a_file_that_can_be_read_only_once_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alertmanager reads it for every message; a shell's process substitution is such a file."""
    os.mkfifo(tmp_path / "pipe")
    assert "reads it again for every message" in refused(tmp_path / "pipe", tmp_path, capsys, monkeypatch)


def test_the_settings_hold_the_path_and_not_the_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is absolute, since Alertmanager runs in another folder."""
    monkeypatch.chdir(tmp_path)
    Path("slack_url").write_text(f"https://hooks.slack.com/services/{SECRET}\n")
    with command.make_context("demo", ["--slack-url-file", "slack_url"]) as context:
        settings = command.settings(context)
    assert settings.slack_url_file == tmp_path / "slack_url"
    assert SECRET not in repr(settings)
