"""``celerymeter revoke``: a client of the control API, so that roles, audit and follow-up hold from a shell too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import click
import msgspec
import requests

from celerymeter.cli.command import Values, setting, settings_command
from celerymeter.cli.control import secret_option
from celerymeter.cli.options import fields_of, require
from celerymeter.cli.values import DURATION, HTTP_URL
from celerymeter.errors import ControlError, MissingSetting
from celerymeter.urls import without_password

BASE_PATH: Final = "/celery-admin"
TIMEOUT: Final = 10.0
EVERY: Final = 0.5


@dataclass(frozen=True, slots=True)
class RevokeSettings:
    """What to revoke, and where; ``wait`` in seconds."""

    control_url: str
    token: str = field(repr=False)
    id: tuple[str, ...]
    terminate: bool = False
    signal: str = "SIGTERM"
    reason: str = ""
    dry_run: bool = False
    wait: float = 10.0
    format: str = "text"


class TaskLine(msgspec.Struct):
    """One task of the answer."""

    task_id: str
    status: str
    detail: str
    worker: str | None = None


class Answer(msgspec.Struct):
    """What the API says of a batch, as far as it is shown here."""

    total: int
    successful: int
    failed: int
    unverified: int
    summary: str
    settled: bool
    results: list[TaskLine]
    batch_id: str | None = None
    dry_run: bool = False


class _Problem(msgspec.Struct):
    detail: str = ""
    batch_id: str | None = None


def revoke_settings(values: Values) -> RevokeSettings:
    """The settings of the options."""
    if not values["id"]:
        raise MissingSetting("--id: missing; give the id of a task, once or more")
    for name in ("control_url", "token"):
        require(values, name)
    return RevokeSettings(**fields_of(RevokeSettings, values))


@settings_command("revoke", build=revoke_settings)
@setting("--control-url", HTTP_URL, mask=without_password, help="The control API, such as http://127.0.0.1:8000.")
@secret_option("--token", "File of a token with the role operator; --terminate needs admin.")
@setting("--id", multiple=True, help="A task's id; may be repeated.")
@setting("--terminate/--no-terminate", default=False, help="End the process of a task that runs.")
@setting(
    "--signal", click.Choice(["SIGTERM", "SIGKILL", "SIGQUIT", "SIGINT"]), default="SIGTERM", help="How to end it."
)
@setting("--reason", default="", help="Why, for the audit trail.")
@setting("--dry-run/--no-dry-run", default=False, help="Only say what is known of each task.")
@setting("--wait", DURATION, default=10.0, help="How long to follow what is not settled at once; 0s not at all.")
@setting("--format", click.Choice(["text", "json"]), default="text", help="A table, or the API's answer.")
def command(settings: RevokeSettings) -> int:
    """Revoke tasks through the control API, and say of each what is proven.

    Exit status 0 when every task counts as successful, else 1. What is not settled when --wait is over, or at ^C, is
    followed by the API on its own.
    """
    body = post(settings)
    answer = _read(body)
    try:
        for body in follow(settings, answer):
            answer = _read(body)
    except KeyboardInterrupt:
        click.echo("no longer waiting; the revoke goes on", err=True)
    except ControlError as error:
        click.echo(f"{error}; this is what was known before", err=True)
    click.echo(body.decode() if settings.format == "json" else table(answer))
    if not answer.settled:
        click.echo(f"not settled, and followed on: GET {_url(settings)}/{answer.batch_id}", err=True)
    return 0 if answer.successful == answer.total else 1


def post(settings: RevokeSettings) -> bytes:
    """Ask for the revoke; raises `ControlError`."""
    parameters = {
        "terminate": settings.terminate,
        "signal": settings.signal,
        "reason": settings.reason,
        "dry_run": settings.dry_run,
    }
    body = {"task_ids": list(settings.id), "operation": "revoke", "parameters": parameters}
    return _call(lambda: requests.post(_url(settings), json=body, headers=_headers(settings), timeout=TIMEOUT))


def follow(settings: RevokeSettings, answer: Answer) -> Iterator[bytes]:
    """The batch as it stands, while there is time and something may change, which is told; raises `ControlError`."""
    until = time.monotonic() + settings.wait
    url, told = f"{_url(settings)}/{answer.batch_id}", ""
    while not answer.settled and time.monotonic() < until:
        news = f"{_settled(answer)} of {answer.total} settled ({answer.summary})"
        if news != told:
            click.echo(told := news, err=True)
        time.sleep(min(EVERY, settings.wait))
        body = _call(lambda: requests.get(url, headers=_headers(settings), timeout=TIMEOUT))
        answer = _read(body)
        yield body


def table(answer: Answer) -> str:
    """For people: a line a task, and what they come to."""
    rows = [
        tuple(map(printable, (task.task_id, task.status, task.worker or "-", task.detail))) for task in answer.results
    ]
    widths = [max(len(row[column]) for row in [("TASK", "STATUS", "WORKER", ""), *rows]) for column in range(3)]
    lines = [
        "  ".join([*(word.ljust(width) for word, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in [("TASK", "STATUS", "WORKER", "DETAIL"), *rows]
    ]
    counted = f"{answer.successful} successful, {answer.failed} failed, {answer.unverified} unverified"
    batch = "; a dry run, nothing was sent" if answer.dry_run else f", batch {answer.batch_id}"
    return "\n".join([*lines, f"{answer.total} task(s): {counted} ({answer.summary}){batch}"])


def printable(text: str) -> str:
    """What somebody else wrote may not move the cursor of who reads it."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _settled(answer: Answer) -> int:
    open_statuses = {"terminate_sent", "pending", "flagged", "flagged_unknown", "partial", "error"}
    return sum(task.status not in open_statuses for task in answer.results)


def _url(settings: RevokeSettings) -> str:
    """Below the base path, which may be left out where it is the usual one."""
    url = settings.control_url.rstrip("/")
    return f"{url}{'' if urlsplit(url).path else BASE_PATH}/tasks/batch"


def _headers(settings: RevokeSettings) -> dict[str, str]:
    return {"Authorization": f"Bearer {settings.token}"}


def _call(send: Callable[[], requests.Response]) -> bytes:
    try:
        response = send()
    except requests.RequestException as error:
        raise ControlError(f"the control API cannot be reached ({type(error).__name__})") from error
    if not response.ok:
        raise ControlError(f"the control API refuses (HTTP {response.status_code}): {_why(response)}")
    return response.content


def _why(response: requests.Response) -> str:
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.DecodeError:
        return "no words"
    return problem.detail + (f" (batch {problem.batch_id})" if problem.batch_id else "")


def _read(body: bytes) -> Answer:
    try:
        return msgspec.json.decode(body, type=Answer)
    except msgspec.DecodeError as error:
        raise ControlError("this is no control API: its answer cannot be read") from error
