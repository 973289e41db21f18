"""``celerymeter revoke``: a client of the control API, so that roles, audit and follow-up apply to a shell too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
import msgspec

from celerymeter.cli.command import settings_command
from celerymeter.cli.control_client import ControlClient
from celerymeter.cli.task_ids import TASK_ID, read_ids
from celerymeter.errors import ControlError, MissingSetting
from celerymeter.escaping import json_source, terminal, terminal_lines
from celerymeter.kinds import DURATION, FILE, HTTP_URL, SECRET_TEXT, SWITCH, TEXT
from celerymeter.options import SECRET_ITSELF, option, setting

PATH: Final = "/tasks/batch"
POLL_INTERVAL: Final = 0.5
OPEN_STATUSES: Final = frozenset({"terminate_sent", "pending", "flagged", "flagged_unknown", "partial", "error"})


@dataclass(frozen=True, slots=True)
class RevokeSettings:
    """Settings of `revoke`: the tasks and the control API; ``wait`` is in seconds."""

    control_url: str = field(repr=False, metadata=option(HTTP_URL, "The control API, such as http://127.0.0.1:8000."))
    token: str = field(
        repr=False,
        metadata=option(
            SECRET_TEXT,
            SECRET_ITSELF,
            file="File that holds a token with the role operator, or admin for --terminate.",
        ),
    )
    id: tuple[str, ...] = setting((), TASK_ID, "Id of a task; may be repeated.", repeated=True)
    ids_file: Path | None = setting(
        None,
        FILE,
        "File with more ids, one a line, or - for stdin; empty lines and lines that begin with # are skipped.",
    )
    terminate: bool = setting(False, SWITCH, "Also end the process of a task that is running.")
    signal: str = setting(
        "SIGTERM", click.Choice(["SIGTERM", "SIGKILL", "SIGQUIT", "SIGINT"]), "Signal that ends the process."
    )
    reason: str = setting("", TEXT, "Reason for the audit trail.")
    dry_run: bool = setting(False, SWITCH, "Revoke nothing; only show what is known of each task.")
    wait: float = setting(10.0, DURATION, "How long to wait for tasks whose result is not proven yet; 0s: not at all.")
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
    raw: bytes = b""
    """The reply as it was received."""


def _check_ids(settings: RevokeSettings) -> None:
    if not settings.id and settings.ids_file is None:
        raise MissingSetting("--id: missing; give this option, or --ids-file")


@settings_command("revoke", RevokeSettings, check=_check_ids)
def command(settings: RevokeSettings) -> int:
    """Revoke tasks through the control API, and show the proven result of each.

    Exit status: 0 if every task was revoked successfully, else 1. If tasks are not settled after --wait, or if you
    press ^C, the API continues without this command.
    """
    client = BatchClient(settings.control_url, settings.token)
    batch = client.revoke(settings)
    try:
        for update in follow(client, batch, wait=settings.wait):
            batch = update
    except KeyboardInterrupt:
        click.echo("stopped waiting; the control API continues the revoke", err=True)
    except ControlError as error:
        click.echo(terminal(f"{error}; the last known state follows"), err=True)
    click.echo(terminal_lines(json_source(batch.raw.decode()) if settings.format == "json" else table(batch)))
    if not batch.settled:
        see = f"GET {client.url}/{batch.batch_id}"
        click.echo(terminal(f"not settled yet, the control API continues; for later results see {see}"), err=True)
    return 0 if batch.successful == batch.total else 1


def follow(client: BatchClient, batch: BatchReply, *, wait: float) -> Iterator[BatchReply]:
    """Yield the batch again and again until it is settled or ``wait`` (s) is over; raises `ControlError`."""
    until = time.monotonic() + wait
    shown = ""
    while not batch.settled and time.monotonic() < until:
        settled = sum(task.status not in OPEN_STATUSES for task in batch.results)
        progress = f"{settled} of {batch.total} settled ({batch.summary})"
        if progress != shown:
            click.echo(terminal(shown := progress), err=True)
        time.sleep(min(POLL_INTERVAL, wait))
        batch = client.get(batch.batch_id or "")
        yield batch


class BatchClient:
    """A client of the batches of the control API; every method raises `ControlError`."""

    def __init__(self, control_url: str, token: str) -> None:
        self._client = ControlClient(control_url, token)
        self.url = f"{self._client.url}{PATH}"

    def revoke(self, settings: RevokeSettings) -> BatchReply:
        """Send the revoke and return the new batch."""
        parameters = {
            "terminate": settings.terminate,
            "signal": settings.signal,
            "reason": settings.reason,
            "dry_run": settings.dry_run,
        }
        ids = [*settings.id, *(read_ids(settings.ids_file) if settings.ids_file else ())]
        body = {"task_ids": ids, "operation": "revoke", "parameters": parameters}
        return self._call("POST", PATH, json=body)

    def get(self, batch_id: str) -> BatchReply:
        """Return a batch as it is now."""
        return self._call("GET", f"{PATH}/{batch_id}")

    def _call(self, method: str, path: str, *, json: object = None) -> BatchReply:
        batch, raw = self._client.call(method, path, BatchReply, json=json)
        batch.raw = raw
        return batch


def table(batch: BatchReply) -> str:
    """Return a table with a line for each task, and a summary below."""
    rows = [
        tuple(map(terminal, (task.task_id, task.status, task.worker or "-", task.detail))) for task in batch.results
    ]
    widths = [max(len(row[column]) for row in [("TASK", "STATUS", "WORKER", ""), *rows]) for column in range(3)]
    lines = [
        "  ".join([*(word.ljust(width) for word, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in [("TASK", "STATUS", "WORKER", "DETAIL"), *rows]
    ]
    counted = f"{batch.successful} successful, {batch.failed} failed, {batch.unverified} unverified"
    end = "; dry run, nothing was sent" if batch.dry_run else f", batch {batch.batch_id}"
    return "\n".join([*lines, f"total {batch.total}: {counted} ({batch.summary}){end}"])
