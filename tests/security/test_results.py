"""Clients that write to the result backend decide how long results are: asking for states stays small and quick."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
import redis
from tests.security.process import peak_of

from celerymeter.control.evidence.result_backend import LONGEST, PAGE, ResultBackend
from celerymeter.demo.servers import Redis
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration

Make: TypeAlias = Callable[..., ResultBackend]
DONE: dict[str, object] = {"traceback": None, "children": [], "date_done": "2026-11-29T10:00:00+00:00"}


@pytest.fixture
def stored(shared_redis: Redis) -> Iterator[Any]:
    """A client of the Redis that keeps the results."""
    client: Any = redis.Redis(port=shared_redis.port)
    yield client
    client.flushall()
    client.close()


def fill(client: Any, task_ids: list[str], size: int, *, before: str, after: str) -> None:
    """Store a result of so many bytes for each task, made inside Redis."""
    pipe = client.pipeline(transaction=False)
    for task_id in task_ids:
        pipe.set(f"celery-task-meta-{task_id}", before)
        pipe.setrange(f"celery-task-meta-{task_id}", size - len(after), after)
    pipe.execute()


@pytest.fixture
def backend(shared_redis: Redis) -> Iterator[Make]:
    """A function that returns a result backend; ``cut`` is called with the numbers of values that were cut."""
    made: list[ResultBackend] = []

    def make(**options: Any) -> ResultBackend:
        made.append(ResultBackend(shared_redis.url, BrokerSettings(url=shared_redis.url), **options))
        return made[-1]

    yield make
    for each in made:
        each._backend.client.close()


RESULTS = {
    "one of 100 MB": (1, 100_000_000),
    "ten of 2 MB": (10, 2_000_000),
    "three hundred of 100 kB": (300, 100_000),
}


@pytest.mark.parametrize(("number", "size"), RESULTS.values(), ids=RESULTS)
def test_long_results_take_little_and_tell_their_states(stored: Any, backend: Make, number: int, size: int) -> None:
    """They were read whole, all at once."""
    task_ids = [f"t{each}" for each in range(number)]
    end = json.dumps(DONE)[1:]
    fill(stored, task_ids, size, before='{"status": "SUCCESS", "result": ["', after=f'"], {end}')
    cut: list[int] = []
    states, megabytes = peak_of(lambda: backend(cut=cut.append).states(task_ids))
    assert set(states.values()) == {"SUCCESS"}
    assert len(states) == sum(cut) > 0
    assert megabytes < 25


@pytest.mark.parametrize(
    "before", ["", '{"result": "', '{"status": "', '{"status": "SUCCESS", "re', '{"status": 5, "result": ']
)
def test_a_long_value_that_begins_otherwise_says_nothing(stored: Any, backend: Make, before: str) -> None:
    """And costs no other its state."""
    fill(stored, ["bad"], 1_000_000, before=before, after="x")
    stored.set("celery-task-meta-good", json.dumps({"status": "FAILURE", "result": {"exc_type": "E"}, **DONE}))
    cut: list[int] = []
    found = backend(cut=cut.append).stored(["bad", "good", "none"])
    assert cut == [1]
    assert {task_id: (each.state, each.exception) for task_id, each in found.items()} == {"good": ("FAILURE", "E")}


@pytest.mark.parametrize("size", [LONGEST - 1000, 1000])
def test_a_result_of_usual_length_is_read_whole(stored: Any, backend: Make, size: int) -> None:
    """With its time."""
    stored.set("celery-task-meta-a", json.dumps({"status": "SUCCESS", "result": "", **DONE, "name": "x"}))
    stored.set("celery-task-meta-b", json.dumps({"status": "SUCCESS", "result": "x" * size, **DONE, "name": "y"}))
    cut: list[int] = []
    found = backend(cut=cut.append).stored(["a", "b"])
    assert (found["a"].ended_at, found["a"].name, found["b"].name, cut) == (1795946400.0, "x", "y", [])


def test_a_backend_that_is_slow_is_not_waited_for(stored: Any, backend: Make) -> None:
    """A second for all of a thousand tasks: the others are unknown."""
    task_ids = [f"t{each}" for each in range(1000)]
    stored.mset({f"celery-task-meta-{task_id}": json.dumps({"status": "SUCCESS", **DONE}) for task_id in task_ids})
    times = iter(range(1000))
    slow = backend(clock=lambda: next(times) * 0.3)
    assert len(slow.states(task_ids)) == 4 * PAGE
