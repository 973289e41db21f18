"""``celerymeter revoke``: a client of the control API, so that roles, audit and follow-up apply to a shell too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import click
import msgspec
import requests

from celerymeter.cli.command import settings_command
from celerymeter.errors import ControlError
from celerymeter.kinds import DURATION, HTTP_URL, SECRET_TEXT, SWITCH, TEXT
from celerymeter.options import SECRET_ITSELF, option, setting

BASE_PATH: Final = "/celery-admin"
TIMEOUT: Final = 10.0
POLL_INTERVAL: Final = 0.5


@dataclass(frozen=True, slots=True)
class RevokeSettings:
    """What to revoke, and where; ``wait`` is in seconds."""

    control_url: str = field(metadata=option(HTTP_URL, "The control API, such as http://127.0.0.1:8000."))
    token: str = field(
        repr=False,
        metadata=option(
            SECRET_TEXT,
            SECRET_ITSELF,
            file="File that holds a token with the role operator, or admin for --terminate.",
        ),
    )
    id: tuple[str, ...] = field(metadata=option(TEXT, "Id of a task; may be repeated.", repeated=True))
    terminate: bool = setting(False, SWITCH, "Also end the process of a task that is running.")
    signal: str = setting(
        "SIGTERM", click.Choice(["SIGTERM", "SIGKILL", "SIGQUIT", "SIGINT"]), "Signal that ends the process."
    )
    reason: str = setting("", TEXT, "Reason for the audit trail.")
    dry_run: bool = setting(False, SWITCH, "Revoke nothing; only show what is known of each task.")
    wait: float = setting(10.0, DURATION, "How long to wait for tasks that are not settled at once; 0s: not at all.")
    format: str = setting("text", click.Choice(["text", "json"]), "text: a table of the tasks; json: the API's reply.")


class TaskLine(msgspec.Struct):
    """One task of the reply."""

    task_id: str
    status: str
    detail: str
    worker: str | None = None


class BatchReply(msgspec.Struct):
    """The API's reply about a batch, as far as it is shown here."""

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


@settings_command("revoke", RevokeSettings)
def command(settings: RevokeSettings) -> int:
    """Revoke tasks through the control API, and show the proven result of each.

    Exit status 0 if every task was revoked successfully, else 1. After --wait or ^C the API goes on with the tasks that
    are not settled.
    """
    body = post(settings)
    answer = _read(body)
    try:
        for body in follow(settings, answer):
            answer = _read(body)
    except KeyboardInterrupt:
        click.echo("stopped waiting; the control API goes on with the revoke", err=True)
    except ControlError as error:
        click.echo(f"{error}; the last known state follows", err=True)
    click.echo(body.decode() if settings.format == "json" else table(answer))
    if not answer.settled:
        click.echo(f"not settled yet; see GET {_url(settings)}/{answer.batch_id}", err=True)
    return 0 if answer.successful == answer.total else 1


def post(settings: RevokeSettings) -> bytes:
    """Send the revoke and return the reply; raises `ControlError`."""
    parameters = {
        "terminate": settings.terminate,
        "signal": settings.signal,
        "reason": settings.reason,
        "dry_run": settings.dry_run,
    }
    body = {"task_ids": list(settings.id), "operation": "revoke", "parameters": parameters}
    return _call(lambda: requests.post(_url(settings), json=body, headers=_headers(settings), timeout=TIMEOUT))


def follow(settings: RevokeSettings, answer: BatchReply) -> Iterator[bytes]:
    """Yield the batch again and again until it is settled or the time is over; raises `ControlError`."""
    until = time.monotonic() + settings.wait
    url, shown = f"{_url(settings)}/{answer.batch_id}", ""
    while not answer.settled and time.monotonic() < until:
        progress = f"{_settled(answer)} of {answer.total} settled ({answer.summary})"
        if progress != shown:
            click.echo(shown := progress, err=True)
        time.sleep(min(POLL_INTERVAL, settings.wait))
        body = _call(lambda: requests.get(url, headers=_headers(settings), timeout=TIMEOUT))
        answer = _read(body)
        yield body


def table(answer: BatchReply) -> str:
    """Return a table with a line for each task, and a summary below."""
    rows = [
        tuple(map(printable, (task.task_id, task.status, task.worker or "-", task.detail))) for task in answer.results
    ]
    widths = [max(len(row[column]) for row in [("TASK", "STATUS", "WORKER", ""), *rows]) for column in range(3)]
    lines = [
        "  ".join([*(word.ljust(width) for word, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in [("TASK", "STATUS", "WORKER", "DETAIL"), *rows]
    ]
    counted = f"{answer.successful} successful, {answer.failed} failed, {answer.unverified} unverified"
    batch = "; dry run, nothing was sent" if answer.dry_run else f", batch {answer.batch_id}"
    return "\n".join([*lines, f"{answer.total} task(s): {counted} ({answer.summary}){batch}"])


def printable(text: str) -> str:
    """Escape control characters: a task's id or detail must not write into the terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _settled(answer: BatchReply) -> int:
    open_statuses = {"terminate_sent", "pending", "flagged", "flagged_unknown", "partial", "error"}
    return sum(task.status not in open_statuses for task in answer.results)


def _url(settings: RevokeSettings) -> str:
    """Return the URL of batches; a control URL without a path gets the default base path."""
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
        raise ControlError(f"the control API refused (HTTP {response.status_code}): {_why(response)}")
    return response.content


def _why(response: requests.Response) -> str:
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.DecodeError:
        return "no reason given"
    return problem.detail + (f" (batch {problem.batch_id})" if problem.batch_id else "")


def _read(body: bytes) -> BatchReply:
    try:
        return msgspec.json.decode(body, type=BatchReply)
    except msgspec.DecodeError as error:
        raise ControlError("the reply is not from a control API: it cannot be read") from error
