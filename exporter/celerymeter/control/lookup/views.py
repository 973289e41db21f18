"""``GET /tasks/{id}``: where is a task, and why has it not run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from flask import Response
from pydantic import BaseModel, Field
from werkzeug.routing import BaseConverter

from celerymeter.control.auth import current_identity
from celerymeter.control.lookup.models import TaskReply
from celerymeter.control.lookup.service import LookupService
from celerymeter.control.revocation.models import MAX_ID_LENGTH
from celerymeter.control.revocation.service import is_task_id
from celerymeter.control.routing import ControlBlueprint, Permission, answer
from celerymeter.errors import RequestRefused
from celerymeter.rate_limit import RateLimit

PATH: Final = "/tasks/<task:task_id>"


class TaskConverter(BaseConverter):
    """The id of a task in a path, slashes included; ``/tasks/batch`` and what is below it are other operations."""

    regex = r"(?!batch(?:/|$))(?s:.+)"
    part_isolating = False


class TaskPath(BaseModel):
    """The task of a path."""

    task_id: str = Field(min_length=1, max_length=MAX_ID_LENGTH)


def blueprint(
    *, lookups: LookupService, per_minute: float, clock: Callable[[], float] = time.monotonic
) -> ControlBlueprint:
    """Return the operation; each subject may look up so many tasks a minute."""
    bp = ControlBlueprint("tasks-lookup")
    rate = RateLimit(per_minute)

    @bp.get(PATH, permission=Permission.VIEWER, responses={200: TaskReply}, errors=(503,))
    def read_task(path: TaskPath) -> Response:
        """Show where a task is, why it has not run, and the evidence for that.

        Looks at events, workers, queues and the result backend, and changes nothing. What cannot be known is `unknown`,
        with the reason in `sentence`. Arguments and results are never shown.
        """
        if not is_task_id(path.task_id):
            raise RequestRefused(
                "invalid", "not a task id: it must have 1 to 255 visible characters, none of them a space"
            )
        if (wait := rate.take(current_identity().sub, clock())) > 0:
            raise RequestRefused("too_many_requests", "too many look-ups", retry_after=wait)
        return answer(lookups.look_up(path.task_id))

    return bp
