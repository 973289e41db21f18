"""Other releases of Celery than the installed one: one batch each; all that is tried, with ``-m slow``."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from tests.revocation.cluster import Cluster, running_cluster
from tests.revocation.releases import OTHERS, Setting

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=OTHERS)
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The API and workers of that release."""
    with running_cluster(tmp_path_factory.mktemp("release"), Setting(release=request.param)) as cluster:
        cluster.worker("prefork@t", concurrency=2)
        cluster.worker("one@t")
        cluster.worker("threads@t", pool="threads")
        yield cluster


def test_without_terminate(cluster: Cluster) -> None:
    """The workers say the same of all of them."""
    succeeded, failed = (
        cluster.send(name, *args, queue="prefork") for name, args in (("tests.add", (1, 2)), ("tests.fail", ()))
    )
    assert (cluster.ends(succeeded), cluster.ends(failed)) == ("SUCCESS", "FAILURE")
    busy = cluster.hold("one").id
    reserved, queued = (cluster.send("tests.add", 1, 2, queue=queue) for queue in ("one", "nowhere"))
    eta = cluster.send("tests.add", 1, 2, queue="prefork", countdown=3600)
    for task_id in (reserved, queued, eta):
        cluster.knows(task_id)
    never = uuid4().hex
    wanted = {
        succeeded: "already_finished",
        failed: "already_finished",
        busy: "running_not_terminated",
        **dict.fromkeys((reserved, queued, eta), "flagged"),
        never: "flagged_unknown",
    }
    reply = cluster.becomes(cluster.revoke(*wanted), wanted)
    assert (cluster.state(failed), cluster.state(succeeded)) == ("FAILURE", "SUCCESS")
    cluster.let_go()
    cluster.becomes(reply, {**wanted, reserved: "revoked"})


def test_with_terminate(cluster: Cluster) -> None:
    """One dies, one ignores the signal, one cannot be ended by its pool."""
    mortal, stubborn, thread = cluster.hold("prefork"), cluster.hold("prefork", unmoved=True), cluster.hold("threads")
    reply = cluster.revoke(mortal.id, stubborn.id, thread.id, terminate=True)
    cluster.becomes(reply, {mortal.id: "terminated", stubborn.id: "terminate_sent", thread.id: "error"})
    cluster.let_go()
    last = cluster.becomes(reply, {mortal.id: "terminated", stubborn.id: "ran_anyway", thread.id: "ran_anyway"})
    assert last["settled"]
