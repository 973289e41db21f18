"""The class of an exception is read from what Python writes, whatever the exception says of itself."""

from __future__ import annotations

import asyncio
import builtins
import sys
from collections.abc import Callable
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo, RemoteTraceback
from billiard.exceptions import TimeLimitExceeded
from celery.exceptions import Retry
from kombu.utils.encoding import safe_repr

from celerymeter.exception_names import brief_traceback, exception_name

QUOTED = 'Traceback (most recent call last):\n  File "x", line 1, in f\n    g()\nsecret: alice\n'
CHAINED = "a: b\n\nDuring handling of the above exception, another exception occurred:\n\n"
GROUP: Any = getattr(builtins, "ExceptionGroup", None)


class Talks(Exception):
    """An exception whose repr is its message, as those of several libraries."""

    def __repr__(self) -> str:
        return str(self)


def reported(raise_it: Callable[[], object]) -> tuple[str, str]:
    """Return repr and traceback as Celery puts them into an event (`celery.worker.request.Request.on_failure`)."""
    try:
        raise_it()
    except BaseException as error:  # noqa: BLE001 - any of them
        return safe_repr(error), str(ExceptionInfo().traceback)
    raise AssertionError("nothing was raised")


def raising(error: BaseException, *, cause: BaseException | None = None) -> Callable[[], object]:
    """Return a function that raises the exception."""

    def raise_it() -> None:
        raise error from cause

    return raise_it


def while_handling(first: BaseException, second: BaseException) -> Callable[[], object]:
    """Return a function that raises the second exception while it handles the first."""

    def raise_it() -> None:
        try:
            raise first
        except BaseException:  # noqa: BLE001 - any of them
            raise second  # noqa: B904 - this is the case

    return raise_it


def with_note(error: BaseException, note: str) -> BaseException:
    """Return the exception with a note, where Python has notes."""
    if sys.version_info >= (3, 11):
        error.add_note(note)
    return error


def local_class() -> type[Exception]:
    """Return a class whose qualified name has ``<locals>``."""

    class Inner(Talks):
        pass

    return Inner


def remote() -> RemoteTraceback:
    """Return what billiard sets as the cause of an exception of another process."""
    return RemoteTraceback(f'\n"""\n{QUOTED}"""')


def deep() -> object:
    """Call itself until Python refuses."""
    return deep()


async def cancelled() -> None:
    """Be cancelled."""
    raise asyncio.CancelledError


CASES = {
    "its own repr": (raising(Talks("alice")), "Talks"),
    "a repr like a class": (raising(Talks("alice(3)")), "Talks"),
    "a message that quotes a traceback": (raising(Talks(QUOTED)), "Talks"),
    "a usual one that quotes a chained traceback": (raising(ValueError(CHAINED + QUOTED)), "ValueError"),
    "several lines": (raising(Talks("1 error\nid\n  File no, or: what\nFoo: bar")), "Talks"),
    "lines before its class": (raising(Talks("\n\n  File\nFoo: bar")), "Talks"),
    "no message": (raising(Talks()), "Talks"),
    "a local class": (raising(local_class()("x")), "Inner"),
    "a note": (raising(with_note(Talks("x"), "Foo: bar\n" + QUOTED)), "Talks"),
    "a cause": (raising(Talks("x"), cause=KeyError("y")), "Talks"),
    "raised while another is handled": (while_handling(KeyError("x"), Talks("y")), "Talks"),
    "three in a row": (while_handling(KeyError("x"), with_note(Talks("y"), CHAINED)), "Talks"),
    "of another process": (raising(Talks("x"), cause=remote()), "Talks"),
    "a syntax error": (lambda: compile("1 +* 2", "x", "exec"), "SyntaxError"),
    "a recursion": (deep, "RecursionError"),
    "of a module of C": (lambda: asyncio.run(cancelled()), "CancelledError"),
}


@pytest.mark.parametrize(("raise_it", "name"), CASES.values(), ids=CASES)
def test_the_class_is_that_of_the_exception_that_was_raised(raise_it: Callable[[], object], name: str) -> None:
    """Also after the traceback was cut for an event that waits."""
    representation, traceback = reported(raise_it)
    assert exception_name(representation, traceback) == name
    brief = brief_traceback(representation, traceback)
    assert exception_name(representation, brief) == name
    assert len(brief) < 200


@pytest.mark.skipif(GROUP is None, reason="Python has no groups")
@pytest.mark.parametrize("chained", [False, True])
def test_the_class_of_a_group_is_its_own(chained: bool) -> None:
    """Not that of one of its members, nor what these say."""
    group = GROUP("alice: x", [Talks(QUOTED), GROUP("bob: y", [KeyError(CHAINED), Talks("z")])])
    named = type("Named", (GROUP,), {"__repr__": lambda self: self.message})
    for error, name in ((group, "ExceptionGroup"), (named("alice", [group]), "Named")):
        representation, traceback = reported(while_handling(KeyError("x"), error) if chained else raising(error))
        assert exception_name(representation, traceback) == name
        assert exception_name(representation, brief_traceback(representation, traceback)) == name
    representation, traceback = reported(while_handling(group, Talks("x")))
    assert exception_name(representation, traceback) == "Talks"


def test_the_class_of_a_retry_is_that_of_the_exception_that_is_handled() -> None:
    """`autoretry_for` and ``raise task.retry(exc=error)`` report its repr with the traceback of `Retry`."""
    _, traceback = reported(while_handling(Talks("alice"), Retry("again")))
    assert exception_name("alice", traceback) == "Talks"
    assert exception_name("alice", brief_traceback("alice", traceback)) == "Talks"


@pytest.mark.parametrize(
    ("representation", "name"),
    [("Talks('x')", "Talks"), ("None", "unknown"), ("Retry in 3s: Talks('x')", "Retry"), ("alice", "unknown")],
)
def test_a_retry_outside_a_handler_has_the_class_that_it_reports(representation: str, name: str) -> None:
    """`task.retry(exc=…)` reports an exception that was not raised."""
    _, traceback = reported(raising(Retry("again")))
    assert exception_name(representation, traceback) == name


def test_the_class_is_in_the_traceback_where_celery_hides_it() -> None:
    """Celery 5.7 names its wrapper."""
    _, traceback = reported(raising(TimeLimitExceeded(1)))
    assert exception_name("ExceptionWithTraceback()", traceback) == "TimeLimitExceeded"


@pytest.mark.parametrize("traceback", [None, "", "alice", "alice: x\n" + QUOTED, "Traceback\nalice: x"])
def test_a_text_that_python_has_not_written_names_nothing(traceback: str | None) -> None:
    """Workers in other languages send what they like."""
    assert exception_name("ValueError('x')", traceback) == "ValueError"
    assert exception_name("alice", traceback) == "unknown"
