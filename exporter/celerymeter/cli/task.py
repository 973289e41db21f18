"""``celerymeter task``: ask the control API where a task is, once or with ``--follow`` until it has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

import click
import msgspec

from celerymeter.cli.command import settings_command
from celerymeter.cli.control_client import ControlClient
from celerymeter.cli.task_ids import TASK_ID
from celerymeter.errors import ControlUnavailable
from celerymeter.escaping import json_source, terminal, terminal_lines
from celerymeter.kinds import HTTP_URL, SECRET_TEXT, SWITCH
from celerymeter.options import SECRET_ITSELF, option, setting

POLL_INTERVAL: Final = 1.0
RESTART_TIMEOUT: Final = 60.0
"""Seconds for which an API that does not answer any more is asked again: it may restart."""
SUCCESS: Final = "succeeded"


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """Settings of `task`: the control API, and how to answer."""

    control_url: str = field(repr=False, metadata=option(HTTP_URL, "The control API, such as http://127.0.0.1:8000."))
    token: str = field(
        repr=False,
        metadata=option(SECRET_TEXT, SECRET_ITSELF, file="File that holds a token with the role viewer."),
    )
    follow: bool = setting(False, SWITCH, "Ask every second, and print each change, until the task has ended.")
    lang: str = setting("en", click.Choice(["en", "zh-TW"]), "Language of the sentence.")
    format: str = setting(
        "text",
        click.Choice(["text", "json"]),
        "text: the verdict and its evidence; json: the API's reply, on one line.",
    )


class Sentence(msgspec.Struct):
    """The verdict in one sentence."""

    en: str
    zh_tw: str = msgspec.field(name="zh-TW")


class Run(msgspec.Struct):
    """One run of the task."""

    worker: str
    started: str | None
    ended: str | None
    outcome: str
    exception: str | None


class Evidence(msgspec.Struct):
    """A statement of one source."""

    source: str
    says: str


class Silent(msgspec.Struct):
    """A source that says nothing, and why."""

    source: str
    reason: str


class TaskReply(msgspec.Struct):
    """The API's reply about a task, as far as it is shown here."""

    task_id: str
    verdict: str
    final: bool
    name: str | None
    sentence: Sentence
    runs: list[Run]
    evidence: list[Evidence]
    not_asked: list[Silent]
    unreachable: list[Silent]


@click.argument("task_id", metavar="ID", type=TASK_ID)
def _run(settings: TaskSettings, task_id: str) -> int:
    """Say where a task is, and why it has not run, with the evidence.

    Exit status: 0 if this is known, else 1; with --follow 0 if the task succeeded, else 1.
    """
    shown = ""
    for reply, raw in _replies(ControlClient(settings.control_url, settings.token), task_id):
        said = _said(reply, settings.lang)
        if said != shown:
            if settings.format == "json":
                click.echo(json_source(raw.decode()))
            else:
                click.echo(terminal_lines(text(reply, settings.lang)))
            shown = said
        if not settings.follow:
            return 1 if reply.verdict == "unknown" else 0
        if reply.final:
            return 0 if reply.verdict == SUCCESS else 1
    return 1


def _replies(client: ControlClient, task_id: str) -> Iterator[tuple[TaskReply, bytes]]:
    """Ask again and again, from the second time on also an API that restarts; raises `ControlError`."""
    path = f"/tasks/{quote(task_id, safe='')}"
    yield client.call("GET", path, TaskReply)
    answered, lost = time.monotonic(), False
    while True:
        time.sleep(POLL_INTERVAL)
        try:
            reply = client.call("GET", path, TaskReply)
        except ControlUnavailable as error:
            if time.monotonic() - answered > RESTART_TIMEOUT:
                raise
            if not lost:
                click.echo(terminal(f"{error}; asking again for {RESTART_TIMEOUT:g} s"), err=True)
            lost = True
            continue
        answered, lost = time.monotonic(), False
        yield reply


command = settings_command("task", TaskSettings)(_run)


def _said(reply: TaskReply, lang: str) -> str:
    """Return the verdict and the runs, whose changes are shown; times and positions change all the time."""
    return f"{reply.verdict} {[(run.worker, run.outcome) for run in reply.runs]} {lang}"


def text(reply: TaskReply, lang: str) -> str:
    """Return the verdict, the sentence, the runs and what each source says, a line each."""
    sentence = reply.sentence.zh_tw if lang == "zh-TW" else reply.sentence.en
    lines = [f"{terminal(reply.verdict)}  {terminal(reply.name or '-')}  {terminal(reply.task_id)}", terminal(sentence)]
    for run in reply.runs:
        times = f"{terminal(run.started or '?')} to {terminal(run.ended or '?')}"
        exception = f" ({terminal(run.exception)})" if run.exception else ""
        lines.append(f"  run at {terminal(run.worker)}: {terminal(run.outcome)}{exception}, {times}")
    lines += [f"  {terminal(each.source)}: {terminal(each.says)}" for each in reply.evidence]
    for silent, why in ((reply.not_asked, "not asked"), (reply.unreachable, "no answer")):
        lines += [f"  {terminal(each.source)}: {why}: {terminal(each.reason)}" for each in silent]
    return "\n".join(lines)
