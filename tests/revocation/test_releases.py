"""Other releases of Celery than the installed one: one batch each; all that is tried, with ``-m slow``."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from tests.revocation.releases import OTHERS, Setting
from tests.revocation.stage import Stage, staged

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=OTHERS)
def stage(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The API and workers of that release."""
    with staged(tmp_path_factory.mktemp("release"), Setting(release=request.param)) as stage:
        stage.worker("prefork@t", concurrency=2)
        stage.worker("one@t")
        stage.worker("threads@t", pool="threads")
        yield stage


def test_without_terminate(stage: Stage) -> None:
    """The workers say the same of all of them."""
    succeeded, failed = (
        stage.send(name, *args, queue="prefork") for name, args in (("tests.add", (1, 2)), ("tests.fail", ()))
    )
    assert (stage.ends(succeeded), stage.ends(failed)) == ("SUCCESS", "FAILURE")
    busy = stage.hold("one").id
    reserved, queued = (stage.send("tests.add", 1, 2, queue=queue) for queue in ("one", "nowhere"))
    eta = stage.send("tests.add", 1, 2, queue="prefork", countdown=3600)
    for task_id in (reserved, queued, eta):
        stage.knows(task_id)
    never = uuid4().hex
    wanted = {
        succeeded: "already_finished",
        failed: "already_finished",
        busy: "running_not_terminated",
        **dict.fromkeys((reserved, queued, eta), "flagged"),
        never: "flagged_unknown",
    }
    reply = stage.becomes(stage.revoke(*wanted), wanted)
    assert (stage.state(failed), stage.state(succeeded)) == ("FAILURE", "SUCCESS")
    stage.let_go()
    stage.becomes(reply, {**wanted, reserved: "revoked"})


def test_with_terminate(stage: Stage) -> None:
    """One dies, one ignores the signal, one cannot be ended by its pool."""
    mortal, stubborn, thread = stage.hold("prefork"), stage.hold("prefork", unmoved=True), stage.hold("threads")
    reply = stage.revoke(mortal.id, stubborn.id, thread.id, terminate=True)
    stage.becomes(reply, {mortal.id: "terminated", stubborn.id: "terminate_sent", thread.id: "error"})
    stage.let_go()
    last = stage.becomes(reply, {mortal.id: "terminated", stubborn.id: "ran_anyway", thread.id: "ran_anyway"})
    assert last["settled"]
