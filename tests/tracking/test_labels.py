"""Label values are parsed, never evaluated, and always bounded."""

from __future__ import annotations

import pytest

from celerymeter.exception_names import exception_class


@pytest.mark.parametrize(
    ("representation", "name"),
    [
        ("ValueError('x')", "ValueError"),
        ("billiard.exceptions.WorkerLostError('Worker exited prematurely: signal 9')", "WorkerLostError"),
        ("TimeLimitExceeded(1,)", "TimeLimitExceeded"),
        ("HTTPError: 500", "unknown"),
        ("alice", "unknown"),
        ("User (id 3) has no address", "unknown"),
        ("reject requeue=False: on purpose", "Reject"),
        ("Retry in 3s: ValueError('x')", "Retry"),
        ("<Weird object at 0x7f>", "unknown"),
        ("__import__('os').system('x')", "__import__"),
        ("", "unknown"),
        (None, "unknown"),
        ("A" * 500, "unknown"),
    ],
)
def test_the_class_of_an_exception_is_read_from_its_repr(representation: str | None, name: str) -> None:
    """Text and arguments of the exception never reach a label."""
    assert exception_class(representation) == name
