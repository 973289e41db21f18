"""Files that only their owner may change: secrets, and what the state directory holds."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from celerymeter.errors import SettingsError

MAX_SECRET_BYTES = 65536


def read_limited(path: Path, *, flag: str, private: bool) -> bytes:
    """Return at most `MAX_SECRET_BYTES` + 1 bytes of a file that an option names; links are followed.

    Kubernetes mounts secrets as links. Raises `SettingsError` for a file that everybody may write or, where it is
    ``private``, read. Pipes have no mode that matters.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                _check_mode(path, status, flag=flag, private=private and not _kept_from_others(path))
            return file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{flag}: cannot read {path}: {error.strerror}") from error


def open_own(path: Path, *, flag: str, create: bool = False, private: bool = False) -> int:
    """Open a file of the state directory to read, or with ``create`` to write as well, and return its descriptor.

    Raises `SettingsError` for a link, for what is no file, and for a file that everybody may write or, where it is
    ``private``, read; `FileNotFoundError` when there is none.
    """
    access = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    try:
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        problem = "is a link; put the file itself there" if error.errno == errno.ELOOP else error.strerror
        raise SettingsError(f"{flag}: {path} {problem}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"{flag}: {path} is not a file")
        _check_mode(path, status, flag=flag, private=private)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_key_file(path: Path, *, flag: str) -> None:
    """Raise `SettingsError` for a private key, read by a library, that everybody may read or write."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            _check_mode(path, status, flag=flag, private=not _kept_from_others(path))
    except OSError as error:
        raise SettingsError(f"{flag}: cannot read {path}: {error.strerror}") from error


def everybody_reads(path: Path) -> bool:
    """Return whether other users of this machine can read a file."""
    return bool(path.stat().st_mode & stat.S_IROTH) and not _kept_from_others(path)


def write_new(path: Path, content: bytes, *, mode: int = 0o666, durable: bool = False) -> None:
    """Replace a file at once; a link that somebody has put beside it is never followed. Raises `OSError`.

    ``durable``: also after a power failure the file is the old or the new one.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def write_result(path: Path, content: bytes) -> None:
    """Write a result where a user wants it: as `write_new` if a file or nothing is there, else into what is there.

    Devices and pipes stay what they are, and links lead to what is written. Raises `OSError`, also for a link of
    another user: in a folder like /tmp it would choose which of our files we overwrite.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return write_new(path, content)
    if stat.S_ISREG(status.st_mode):
        return write_new(path, content)
    link = stat.S_ISLNK(status.st_mode)
    if link and status.st_uid not in (0, os.geteuid()):
        raise PermissionError(errno.EPERM, "it is a link of another user")
    how = os.O_CREAT if link else os.O_NOFOLLOW
    with open(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | how, 0o666), "wb") as file:
        file.write(content)


def check_own_folder(folder: Path, *, flag: str) -> None:
    """Raise `SettingsError` for a folder in which everybody may put and delete files."""
    # Not for a group: Kubernetes lets the group of `fsGroup` write in every volume.
    if folder.stat().st_mode & stat.S_IWOTH:
        raise SettingsError(
            f"{flag} {folder}: everybody may write there, and replace the files in it; run `chmod o-w {folder}`, or "
            "give a folder below it, which is then created for this user alone"
        )


def _check_mode(path: Path, status: os.stat_result, *, flag: str, private: bool) -> None:
    if status.st_mode & stat.S_IWOTH:
        raise SettingsError(f"{flag}: everybody may write {path}; run `chmod o-rw {path}`")
    if private and status.st_mode & stat.S_IROTH:
        raise SettingsError(f"{flag}: everybody may read {path}; run `chmod o-r {path}`")


def _kept_from_others(path: Path) -> bool:
    """Return whether a file that everybody may read cannot be reached by others anyway."""
    # A read-only mount is how containers get their secrets, often with mode 0444: there is nobody else in a container.
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return True
    return any(not folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
