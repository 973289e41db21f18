"""The README leads from a webhook's URL to a message in the chat: its commands, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.alertmanager.sinks import HttpSink, awaited
from tests.docs.commands import run, scripts, server
from tools.docs.markdown import READMES

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
WEBHOOK = "/services/T0000/B0000/pasted"
NOWHERE = {"http://localhost:8000": "http://127.0.0.1:9"}
"""No control API: a reader who follows the page need not have one."""


def test_a_greeting_arrives_in_the_chat(tmp_path: Path) -> None:
    """Rules laid out, two things changed, Alertmanager started; no other receiver is filled in yet."""
    commands = list(scripts(READMES[0]))
    with HttpSink() as slack:
        typed(commands, "celerymeter bundle export monitoring", folder=tmp_path)
        (tmp_path / "slack_url").write_text(f"{slack.url}{WEBHOOK}\n")
        typed(commands, "mkdir -p -m 700 monitoring/secrets", folder=tmp_path)
        start = command(commands, "prometheus-alertmanager ")
        with server(start, folder=tmp_path, addresses=NOWHERE) as alertmanager:
            hello = {"http://localhost:9093": alertmanager.url}
            typed(
                commands,
                'curl -sf -H "Content-Type: application/json" -d \'[{"labels"',
                folder=tmp_path,
                addresses=hello,
            )
            [message, *_] = awaited(lambda: slack.to(WEBHOOK), what="a message in the chat")
            assert message.body["channel"] == "#your-channel"
            assert message.body["attachments"][0]["title"] == "WARNING: Alerts arrive here"
            assert "|Runbook>" not in message.body["attachments"][0]["text"]


def command(commands: list[str], beginning: str) -> str:
    """The one command of the page that begins so."""
    (found,) = [each for each in commands if each.startswith(beginning)]
    return found


def typed(commands: list[str], beginning: str, *, folder: Path, addresses: Mapping[str, str] | None = None) -> None:
    """Run the one command that begins so."""
    run(command(commands, beginning), folder=folder, addresses=addresses or {})
