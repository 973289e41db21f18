"""The file in which an exporter keeps what it must know after a restart (``--state-file``).

A JSON document with named sections, each of which belongs to one part of the exporter:

    file = StateFile(path)
    file.add("queues", dump=poller.known, load=poller.learn)  # dump returns what msgspec can encode, load takes it
    file.restore()                                            # calls each load, with what its dump had returned
    file.save()                                               # calls each dump, and replaces the file at once

`dump` and `load` take whatever locks they need, and return soon. `load` gets the encoded section (`msgspec.Raw`) and
raises `msgspec.DecodeError` or `ValueError` for what it cannot use: then that section starts anew, and others do not.
Sections that nobody has added are kept as they are: another release may have written them.
"""

from __future__ import annotations

import fcntl
import glob
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from celerymeter.errors import SettingsError, StateError
from celerymeter.files import check_own_folder, open_own, write_new

log = logging.getLogger(__name__)

FLAG = "--state-file"
VERSION = 1
INTERVAL = 10.0
"""Seconds between two saves; more if one takes longer than a twentieth of that."""
SHARE = 20
MAX_BYTES = 512 * 1024 * 1024
"""Of a file that is read: several times what the trackers' own limits let it have."""


class _Document(msgspec.Struct):
    version: int
    saved_at: float
    sections: dict[str, msgspec.Raw]


@dataclass(frozen=True, slots=True)
class _Section:
    dump: Callable[[], object]
    load: Callable[[msgspec.Raw], None]


class StateFile:
    """Reads and replaces the file; one process at a time has it."""

    def __init__(self, path: Path) -> None:
        """Raises `SettingsError` if the file cannot be written, or another exporter has it."""
        self._path = path
        self._sections: dict[str, _Section] = {}
        self._others: dict[str, msgspec.Raw] = {}
        self._saving = threading.Lock()
        """The last save may come while another one is under way."""
        self._took = 0.0
        self._failing = False
        if not path.parent.is_dir():
            raise SettingsError(f"{FLAG}: there is no folder {path.parent}")
        check_own_folder(path.parent, flag=FLAG)
        self._lock = open_own(path.with_name(f"{path.name}.lock"), flag=FLAG, create=True)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise SettingsError(f"{FLAG}: another exporter uses {path}") from error
        for draft in path.parent.glob(f".{glob.escape(path.name)}.*.part"):  # of one that was killed while it saved
            draft.unlink()

    def add(self, name: str, *, dump: Callable[[], object], load: Callable[[msgspec.Raw], None]) -> None:
        """Add a section."""
        self._sections[name] = _Section(dump, load)

    def restore(self) -> None:
        """Load all sections; a file that cannot be used is put aside and logged, and everything starts anew."""
        document = self._read()
        if document is None:
            return
        for name, saved in document.sections.items():
            section = self._sections.get(name)
            if section is None:
                self._others[name] = saved
                continue
            try:
                section.load(saved)
            except (ValueError, RecursionError) as error:
                log.error("%s: the section %s cannot be used and starts anew: %s", self._path, name, error)
        log.info("continuing from %s, saved %.0f s ago", self._path, time.time() - document.saved_at)

    def save(self) -> None:
        """Write all sections; raises `StateError`. The file is the old or the new one at any time."""
        with self._saving:
            began = time.monotonic()
            sections = {name: section.dump() for name, section in self._sections.items()}
            document = {"version": VERSION, "saved_at": time.time(), "sections": {**self._others, **sections}}
            try:
                write_new(self._path, msgspec.json.encode(document), mode=0o600, durable=True)
            except OSError as error:
                raise StateError(f"cannot write {self._path}: {error.strerror}") from error
            self._took = time.monotonic() - began

    def save_or_log(self) -> None:
        """Save; a failure is logged when it begins and when it ends."""
        problem = None
        try:
            self.save()
        except StateError as error:
            problem = str(error)
        if (problem is not None) != self._failing:
            self._failing = problem is not None
            log.warning("%s", problem or f"{self._path} can be written again")

    @property
    def interval(self) -> float:
        """Return the seconds until the next save."""
        return max(INTERVAL, SHARE * self._took)

    def close(self) -> None:
        """Let another process have the file."""
        os.close(self._lock)

    def _read(self) -> _Document | None:
        try:
            descriptor = open_own(self._path, flag=FLAG)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            too_large = os.fstat(descriptor).st_size > MAX_BYTES
            content = b"" if too_large else file.read()
        try:
            if too_large:
                raise ValueError(f"more than {MAX_BYTES // 2**20} MiB")
            document = msgspec.json.decode(content, type=_Document)
            if document.version != VERSION:
                raise ValueError(f"version {document.version} is not {VERSION}")
        except (ValueError, RecursionError) as error:
            aside = self._path.with_name(f"{self._path.name}.unusable")
            os.replace(self._path, aside)
            log.error("%s cannot be used (%s); renamed to %s, and all counters start at 0", self._path, error, aside)
            return None
        return document
