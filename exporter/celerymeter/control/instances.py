"""Which processes that share a state directory are alive: each holds a lock that the kernel drops when it dies."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

FOLDER = "instances"


class Instance:
    """This process, as others see it. The lock is dropped by any death, `kill -9` included, and by no fork."""

    def __init__(self, state_dir: Path) -> None:
        self.id = secrets.token_hex(8)
        self._folder = state_dir / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._sweep()
        draft = self._path(self.id).with_suffix(".draft")
        self._file = os.open(draft, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        draft.rename(self._path(self.id))  # it is not seen before it is locked

    def is_alive(self, instance: str) -> bool:
        """Whether the process of that id lives."""
        if instance == self.id:
            return True
        try:
            file = os.open(self._path(instance), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(file)
        self._path(instance).unlink(missing_ok=True)
        return False

    def _sweep(self) -> None:
        """Remove what the dead left."""
        for path in self._folder.glob("*.lock"):
            self.is_alive(path.stem)

    def close(self) -> None:
        """Be dead to the others."""
        self._path(self.id).unlink(missing_ok=True)
        os.close(self._file)

    def _path(self, instance: str) -> Path:
        return self._folder / f"{instance}.lock"
