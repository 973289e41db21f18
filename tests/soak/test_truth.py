"""Counters are compared with what workers wrote down."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.scrape import Scrape
from tools.soak.truth import Judge, Truth


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Of two workers: one must be exact, of the other nothing may be counted twice."""
    write(tmp_path, "w1@soak-7", started=(1.0, 2.0, 9.5), succeeded=(1.5, 2.5))
    write(tmp_path, "w2@soak-8", started=(1.0, 2.0))
    return Judge(Truth(tmp_path), exact=["w1"], partial=["w1", "w2"])


def write(folder: Path, worker: str, **steps: tuple[float, ...]) -> None:
    """Write down the steps of a worker's tasks with their times, as the worker does."""
    lines = [f"{at:.3f} {step} add\n" for step, times in steps.items() for at in times]
    with (folder / worker).open("a") as file:
        file.writelines(lines)


def page(*, w1: int, w2: int, succeeded: int = 2, waits: int | None = None) -> Scrape:
    """The exporter's."""
    lines = [
        f'celery_task_started_total{{name="add",queue_name="w1"}} {w1}',
        f'celery_task_started_total{{name="add",queue_name="w2"}} {w2}',
        f'celery_task_wait_seconds_count{{name="add",queue_name="w1"}} {w1 if waits is None else waits}',
        f'celery_task_succeeded_total{{name="add",queue_name="w1"}} {succeeded}',
        f'celery_task_runtime_seconds_count{{name="add",queue_name="w1"}} {succeeded}',
    ]
    return Scrape("\n".join(lines) + "\n")


def test_what_is_exact_is_no_problem(judge: Judge) -> None:
    assert judge.problems(page(w1=3, w2=1)) == []


@pytest.mark.parametrize(
    "wrong",
    [page(w1=2, w2=2), page(w1=4, w2=2), page(w1=3, w2=3), page(w1=3, w2=2, waits=2), page(w1=3, w2=2, succeeded=1)],
)
def test_whatever_differs_is_a_problem(judge: Judge, wrong: Scrape) -> None:
    assert judge.problems(wrong)


def test_a_killed_worker_may_lose_its_last_seconds_once(judge: Judge, tmp_path: Path) -> None:
    judge.killed(7, since=9.0)
    lost = page(w1=2, w2=2)
    assert judge.problems(lost) == []
    assert judge.problems(page(w1=1, w2=2)) != []
    judge.accept(lost)
    assert judge.lost_runs("w1") == 1
    assert judge.problems(lost) == []
    assert judge.problems(page(w1=3, w2=2)) != []  # what was lost does not come back
    write(tmp_path, "w1@soak-9", started=(11.0,))
    assert judge.problems(lost) != []
    assert judge.problems(page(w1=3, w2=2)) == []
