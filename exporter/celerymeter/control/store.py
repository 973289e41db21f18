"""The state directory: one SQLite database that replicas on one machine may share.

Every room that keeps something declares its own tables (`Store.declare`) and goes through `Store.write`, which is one
``BEGIN IMMEDIATE`` transaction, durable when it returns (WAL, synchronous=FULL).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from celerymeter.control.filesystem import MOUNTS, network_filesystem
from celerymeter.errors import SettingsError, StateError

DATABASE = "state.db"
VERSION = 1
BUSY_TIMEOUT = 5.0
"""Seconds to wait for another thread or replica that writes."""


class Store:
    """The database of a state directory. Open it after a fork, never before: SQLite's locks are the process's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        prepare_folder(folder)
        self._lock = Lock()
        try:
            (folder / DATABASE).touch(mode=0o600)
            self._writer = self._connect()
            self._check_version()
        except (sqlite3.Error, OSError) as error:
            raise SettingsError(f"--state-dir {folder}: no database can be used there ({error})") from error

    def declare(self, *statements: str) -> None:
        """Create a room's tables and indexes, each statement an ``… IF NOT EXISTS``."""
        with self.write() as connection:
            for statement in statements:
                connection.execute(statement)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when the block ends; an error inside rolls it back. Raises `StateError`."""
        if not self._lock.acquire(timeout=BUSY_TIMEOUT):
            raise StateError("the state directory is busy")
        try:
            with _translated():
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
        finally:
            self._lock.release()

    def read(self, query: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        """All rows of a query, from a connection of its own: readers wait for nobody. Raises `StateError`."""
        with _translated():
            connection = self._connect()
            try:
                return connection.execute(query, parameters).fetchall()
            finally:
                connection.close()

    def close(self) -> None:
        """Close the connection; what is committed is safe without it."""
        with self._lock:
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.folder / DATABASE, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _check_version(self) -> None:
        found = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise SettingsError(f"--state-dir {self.folder}: written by a newer celerymeter (version {found})")
        self._writer.execute(f"PRAGMA user_version = {VERSION}")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StateError(f"the state directory cannot be used: {error}") from error


def prepare_folder(folder: Path, mounts: Path = MOUNTS) -> None:
    """Make the folder (for its owner alone) and make sure that it can hold a database; raises `SettingsError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--state-dir {folder}: cannot be made ({error.strerror})") from error
    if kind := network_filesystem(folder, mounts):
        raise SettingsError(
            f"--state-dir {folder}: lies on a network file system ({kind}), where locks cannot be trusted; "
            "choose a local one (replicas must run on one machine)"
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise SettingsError(f"--state-dir {folder}: may not be written by this user")


def write_secret_once(path: Path, secret: bytes) -> bytes:
    """Keep ``secret`` in a new file for the owner alone, or give what the file holds when it is there already.

    Two replicas that start at once agree: the file appears whole, or not at all.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    try:
        draft.write_bytes(secret)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return path.read_bytes()
