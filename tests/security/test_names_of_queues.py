"""Names of queues that events invent are not asked for where no queue can have them."""

from __future__ import annotations

import pytest
from tests.tracking.cluster import Cluster

from celerymeter.polling.queues import KnownQueues


@pytest.mark.parametrize("name", ["q" * 256, "列" * 86, "\U0001f600" * 64, "q" * 5000])
def test_a_name_that_amqp_cannot_express_is_not_known(name: str) -> None:
    """Asking for one ended each poll of all queues with an error."""
    known = KnownQueues()
    known.add(["celery", name, name[:60]])
    assert known.names == {"celery", name[:60]}


@pytest.mark.parametrize("name", ["q" * 201, "a\nb", "a\x1bb", "\u202eq"])
def test_a_name_that_was_changed_is_not_polled(name: str) -> None:
    """No queue has it."""
    cluster = Cluster()
    cluster.publish("u", queue=name)
    cluster.publish("v", queue="celery")
    assert cluster.tracker.known_queues() == {"celery"}
