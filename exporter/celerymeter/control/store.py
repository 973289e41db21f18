"""The state directory: one SQLite database, and the lock of the one process that serves from it.

A module that stores something declares its own tables (`Store.declare`) and goes through `Store.write`, which is one
``BEGIN IMMEDIATE`` transaction, durable when it returns (WAL, synchronous=FULL).

Others who may write the file, or a broken disk, may have put anything there. Where the tables themselves are changed,
or something was added that could swallow rows or compute without end, nothing is read or written. Values, answers and
time are bounded, and a row that cannot be used is logged and counted.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import Annotated, Final, TypeVar

from pydantic import Field, ValidationError

from celerymeter.control.schema import Schema, create
from celerymeter.errors import SettingsError, StateError
from celerymeter.files import check_own_folder, open_own

DATABASE = "state.db"
VERSION = 1
BUSY_TIMEOUT = 5.0
"""Seconds to wait for another thread, or a `celerymeter token`, that writes."""
TIMEOUT: Final = 20.0
"""Seconds that a query, or the statements of a transaction, may take."""
MAX_VALUE: Final = 16 * 2**20
"""Bytes of a value; ours have 3 MB at most. Python 3.10 cannot tell SQLite."""
MAX_READ: Final = 48 * 2**20
"""Bytes of memory that the rows of one answer may take."""
MAX_REASON: Final = 300
"""Characters of the reason for which a row cannot be used."""
_STEPS: Final = 10_000
"""Steps of SQLite between two looks at the clock: a millisecond or less."""
LAST_TIME: Final = 253402300799.0
Time = Annotated[float, Field(ge=0.0, le=LAST_TIME)]
"""A stored time (UTC seconds), up to the last second of the year 9999."""
LOCK = "lock"
LOCK_WAIT = 3.0
"""Seconds to wait for the lock: the worker of a process that was killed ends about a second later."""
NETWORK = frozenset(
    """9p afp afs beegfs ceph cephfs cifs davfs fuse.ceph fuse.davfs2 fuse.glusterfs fuse.juicefs fuse.rclone fuse.s3fs
    fuse.sshfs glusterfs gpfs lustre ncpfs nfs nfs3 nfs4 orangefs pvfs2 smb2 smb3 smbfs""".split()  # noqa: SIM905 - a list of words
)
UNUSABLE: Final = (sqlite3.Error, MemoryError, UnicodeDecodeError)
"""What `sqlite3` raises for a broken file: one may claim a row of 4 GiB, or have bytes quoted that are no UTF-8."""
MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


_T = TypeVar("_T")
log = logging.getLogger(__name__)


class Store:
    """The database of a state directory. Open it after a fork, never before: SQLite's locks belong to a process.

    ``unreadable`` is called with a table and the number of its rows that could not be used.
    """

    def __init__(self, folder: Path, *, unreadable: Callable[[str, int], object] = lambda *_: None) -> None:
        self.folder = folder
        self._unreadable = unreadable
        self._schema = Schema()
        prepare_folder(folder)
        self._lock = Lock()
        try:
            os.close(open_own(folder / DATABASE, flag="--state-dir", create=True))
            check_journals(folder)
            self._writer = self._connect()
            self._check_version()
        except (*UNUSABLE, OSError) as error:
            raise SettingsError(f"--state-dir {folder}: cannot hold a database ({explain(error)})") from error

    def declare(self, *statements: str, columns: Mapping[str, str] | None = None) -> None:
        """Create tables and indexes, each statement an ``… IF NOT EXISTS``, and columns that came later, by table.

        Raises `SettingsError` when the database has them in another form.
        """
        self._schema.declare(statements, columns or {})
        with self._transaction() as connection:
            create(connection, statements, columns or {})
            fault = self._schema.fault(connection)
        if fault:
            raise SettingsError(
                f"--state-dir {self.folder}: {fault}, and celerymeter did not make it so: somebody has changed the "
                "database; see `celerymeter audit verify`, or choose another --state-dir"
            )

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction: on disk when the block ends, rolled back by an error. Raises `StateError`."""
        with self._transaction() as connection:
            self._check_schema(connection)
            yield connection

    def read(self, query: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return all rows of a query, from a new connection, so that readers never wait. Raises `StateError`."""
        with _translated(), closing(self._connect()) as connection, _time_limit(connection):
            self._check_schema(connection)
            return _bounded(connection.execute(query, parameters))

    def load(
        self, table: str, convert: Callable[[sqlite3.Row], _T], query: str, parameters: Sequence[object] = ()
    ) -> list[_T]:
        """Return the rows of a query as values. Rows that are none are left out, logged and counted."""
        return self._converted(table, convert, self.read(query, parameters))[0]

    def load_whole(
        self, table: str, convert: Callable[[sqlite3.Row], _T], query: str, parameters: Sequence[object] = ()
    ) -> list[_T]:
        """Return the rows of a query as values; raises `StateError` when one of them is none."""
        return self.convert_whole(table, convert, self.read(query, parameters))

    def convert_whole(self, table: str, convert: Callable[[sqlite3.Row], _T], rows: Iterable[sqlite3.Row]) -> list[_T]:
        """Return rows that a transaction has read as values; raises `StateError` when one of them is none."""
        values, broken = self._converted(table, convert, rows)
        if broken:
            raise StateError(f"the state directory has rows of {table} that cannot be used")
        return values

    def close(self) -> None:
        """Close the connection; what is committed is safe without it."""
        with self._lock:
            self._writer.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if not self._lock.acquire(timeout=BUSY_TIMEOUT):
            raise StateError("the state directory is busy")
        try:
            with _translated(), _time_limit(self._writer):
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    self._writer.set_progress_handler(None, 0)
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
        finally:
            self._lock.release()

    def _converted(
        self, table: str, convert: Callable[[sqlite3.Row], _T], rows: Iterable[sqlite3.Row]
    ) -> tuple[list[_T], int]:
        results = [_attempt(convert, row) for row in rows]
        broken = [result for result in results if isinstance(result, _Unusable)]
        if broken:
            self._unreadable(table, len(broken))
            log.error("%d row(s) of %s in the state directory cannot be used: %s", len(broken), table, broken[0].reason)
        return [result for result in results if not isinstance(result, _Unusable)], len(broken)

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        if fault := self._schema.fault(connection):
            raise StateError(f"the state directory cannot be used: {fault}; somebody has changed its database")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.folder / DATABASE, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        connection.row_factory, connection.text_factory = sqlite3.Row, decode
        if sys.version_info >= (3, 11):
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _check_version(self) -> None:
        found = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise SettingsError(f"--state-dir {self.folder}: written by a newer celerymeter (version {found})")
        self._writer.execute(f"PRAGMA user_version = {VERSION}")


@dataclass(frozen=True, slots=True)
class _Unusable:
    reason: str


def _attempt(convert: Callable[[sqlite3.Row], _T], row: sqlite3.Row) -> _T | _Unusable:
    try:
        return convert(row)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        return _Unusable(_reason(error))


def _reason(error: Exception) -> str:
    """Say in a line why a row cannot be used, without its values."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"[:MAX_REASON]
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:MAX_REASON]


@contextmanager
def _time_limit(connection: sqlite3.Connection) -> Iterator[None]:
    """End statements that take longer than `TIMEOUT`, with SQLite's error."""
    deadline = time.monotonic() + TIMEOUT
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def _bounded(rows: Iterable[sqlite3.Row]) -> list[sqlite3.Row]:
    """Return rows that take no more memory than `MAX_READ`; raises `StateError`."""
    found: list[sqlite3.Row] = []
    size = 0
    for row in rows:
        size += sum(map(sys.getsizeof, row))
        if size > MAX_READ:
            raise StateError(f"the state directory's answer takes more than {MAX_READ // 2**20} MiB")
        found.append(row)
    return found


def explain(error: Exception) -> str:
    """Say in words what `sqlite3` raised, one of `UNUSABLE` or an `OSError`."""
    if isinstance(error, UnicodeDecodeError):
        return decode(error.object)
    return str(error) or "it needs more memory than there is"


def decode(stored: bytes) -> str:
    """Decode a stored text; what is not UTF-8 becomes a text that nothing of ours has."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return repr(stored)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except UNUSABLE as error:
        raise StateError(f"the state directory cannot be used: {explain(error)}") from error


def prepare_folder(folder: Path, mounts: Path = MOUNTS) -> None:
    """Create the folder, readable by its owner only, and check that it can hold a database; raises `SettingsError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--state-dir {folder}: cannot be created ({error.strerror})") from error
    if kind := network_filesystem(folder, mounts):
        raise SettingsError(
            f"--state-dir {folder}: is on a network file system ({kind}), where locks cannot be trusted; "
            "choose a local one"
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise SettingsError(f"--state-dir {folder}: is not writable for this user")
    check_own_folder(folder, flag="--state-dir")


def check_journals(folder: Path) -> None:
    """Raise `SettingsError` when SQLite's files beside the database are links, or everybody may write them."""
    for name in (f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"):
        with suppress(FileNotFoundError):
            os.close(open_own(folder / name, flag="--state-dir"))


def network_filesystem(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the type of the network file system that ``folder`` is on; None for a local or an unknown one."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    kind = mounted_type(lines, folder.resolve())
    return kind if kind in NETWORK else None


def mounted_type(mountinfo: Iterable[str], path: Path) -> str:
    """Return the type of the innermost mount that holds ``path`` (proc_pid_mountinfo(5)); of two the later."""
    depth, kind = -1, ""
    for line in mountinfo:
        fields, _, rest = line.partition(" - ")
        point = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields.split()[4]))
        if path.is_relative_to(point) and len(point.parts) >= depth:
            depth, kind = len(point.parts), rest.split()[0]
    return kind


@contextmanager
def locked(folder: Path, *, wait: float = LOCK_WAIT) -> Iterator[None]:
    """Keep the state directory for this process and its children; raises `SettingsError` when another process has it.

    The kernel drops the lock at any death, ``kill -9`` included. The file stays: who deletes a lock file races with who
    opens it.
    """
    prepare_folder(folder)
    lock = open_own(folder / LOCK, flag="--state-dir", create=True)
    try:
        _wait_for_lock(lock, folder, wait)
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"pid {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)
        yield
    finally:
        os.close(lock)


def _wait_for_lock(lock: int, folder: Path, wait: float) -> None:
    deadline = time.monotonic() + wait
    while not _try_lock(lock):
        if time.monotonic() > deadline:
            holder = os.pread(lock, 1000, 0).decode(errors="replace") or "another process"
            raise SettingsError(f"--state-dir {folder}: another celerymeter control uses it ({holder}); stop it first")
        time.sleep(0.1)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_secret_once(path: Path, secret: bytes) -> bytes:
    """Write ``secret`` to a new file that only its owner may read; return what the file holds when it exists already.

    Two programs that start at once agree: the file appears whole, or not at all.
    """
    if not path.is_symlink() and not path.exists():
        draft = path.with_name(f".{path.name}.{token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secret)
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    return read_own_secret(path)


def read_own_secret(path: Path) -> bytes:
    """Return a secret that the state directory keeps; raises `SettingsError`, or `FileNotFoundError`."""
    with os.fdopen(open_own(path, flag="--state-dir", private=True), "rb") as file:
        return file.read()
