"""Many look-ups at once: one question to the cluster at a time, and the same one once a second."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
from flask import Flask
from tests.control.access import bearer, control_settings
from tests.lookup.evidence import NOW, evidence, held
from tests.revocation.process import ControlProcess

from celerymeter.control.app import create_app
from celerymeter.control.evidence.task import Evidence, Usual
from celerymeter.control.lookup.service import KEPT, MOST, LookupService
from celerymeter.errors import RequestRefused


@dataclass
class Cluster:
    """A cluster that answers when it may, and remembers what it was asked."""

    asked: list[list[str]] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)
    refuses: bool = False
    now: float = 1000.0

    def look(self, task_ids: Sequence[str], *, until: float) -> list[Evidence]:
        """Every task runs."""
        self.asked.append(list(task_ids))
        assert self.may_answer.wait(10)
        if self.refuses:
            raise RequestRefused("too_many_requests", "busy")
        found = evidence(held=(held(started_at=NOW - 5),))
        return [Evidence(task_id, NOW, held=found.held, workers=found.workers) for task_id in task_ids]

    def service(self, usual: Usual | None = None) -> LookupService:
        """Return a service on this cluster, with a clock that stands still."""
        return LookupService(self.look, lambda name, queue: usual, clock=lambda: self.now)


def test_a_hundred_look_ups_at_once_are_two_questions() -> None:
    """The first task alone, then all that came meanwhile."""
    cluster = Cluster()
    service = cluster.service()
    with ThreadPoolExecutor(MOST) as pool:
        first = pool.submit(service.look_up, "first")
        while not cluster.asked:
            threading.Event().wait(0.01)
        others = [pool.submit(service.look_up, f"id-{number}") for number in range(MOST - 1)]
        while service.waiting < MOST - 1:
            threading.Event().wait(0.01)
        cluster.may_answer.set()
        replies = [each.result(10) for each in (first, *others)]
    assert [len(question) for question in cluster.asked] == [1, MOST - 1]
    assert {reply.verdict for reply in replies} == {"running"}
    assert replies[5].task_id == "id-4"


def test_the_same_task_is_asked_for_once_a_second() -> None:
    """Two clients that ask for it cost its workers one question."""
    cluster = Cluster()
    cluster.may_answer.set()
    service = cluster.service()
    assert service.look_up("one") is service.look_up("one")
    cluster.now += KEPT
    service.look_up("one")
    assert cluster.asked == [["one"], ["one"]]


def test_an_error_reaches_everybody_and_is_not_kept() -> None:
    """The next look-up asks again."""
    cluster = Cluster(refuses=True)
    cluster.may_answer.set()
    service = cluster.service()
    with pytest.raises(RequestRefused, match="busy"):
        service.look_up("one")
    cluster.refuses = False
    assert service.look_up("one").verdict == "running"


def test_one_question_has_a_limit() -> None:
    """More tasks than that are refused, with a time to try again."""
    cluster = Cluster()
    service = cluster.service()
    with ThreadPoolExecutor(MOST + 2) as pool:
        pool.submit(service.look_up, "first")
        while not cluster.asked:
            threading.Event().wait(0.01)
        waiting = [pool.submit(service.look_up, f"id-{number}") for number in range(MOST)]
        while service.waiting < MOST:
            threading.Event().wait(0.01)
        with pytest.raises(RequestRefused) as refused:
            service.look_up("one-too-many")
        cluster.may_answer.set()
        assert all(each.result(10).verdict == "running" for each in waiting)
    assert refused.value.retry_after == 1.0


def test_a_prometheus_that_does_not_answer_is_named() -> None:
    """And one that does gives the usual time."""
    cluster = Cluster()
    cluster.may_answer.set()
    assert [each.source for each in cluster.service().look_up("one").unreachable] == ["prometheus"]
    assert cluster.service(Usual(runtime_p95=2.0)).look_up("one").usual_seconds == 2.0


def test_a_subject_may_not_look_up_without_end(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Beyond its rate the answer says when to come again."""
    limits = replace(control_settings().limits, lookups_per_minute=2.0)
    settings = replace(control_settings(), limits=limits)
    process = ControlProcess(tmp_path_factory.mktemp("state"), settings)
    app: Flask = create_app(settings, process.parts)
    client = app.test_client()
    codes = [client.get("/celery-admin/tasks/some-id", headers=bearer()).status_code for _ in range(3)]
    refused = client.get("/celery-admin/tasks/some-id", headers=bearer())
    assert (codes, refused.status_code) == ([200, 200, 429], 429)
    assert int(refused.headers["Retry-After"]) > 0
    process.close()
