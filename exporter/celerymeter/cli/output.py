"""Output of the command line on any terminal and to any file: what an encoding lacks, and a disk that is full."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys

from celerymeter.escaping import in_ascii

UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})
"""Errors of a file that takes no more; other errors without a message of ours are faults of the program."""


def prepare() -> None:
    """Let stdout and stderr write an escape for what their encoding lacks (Latin-1, Windows), instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="celerymeter")


def flush() -> None:
    """Write what is left; raises `OSError`."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def drop() -> None:
    """Drop what is left, since it cannot be written: Python would try again when it ends, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_ascii(error.object[error.start : error.end]), error.end


codecs.register_error("celerymeter", _replaced)
