"""The key of the chain: the operator's, or one that is made at the first start and kept beside the trail."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex

from celerymeter.control.store import Store, write_secret_once
from celerymeter.errors import SettingsError, StateError

KEY_FILE = "audit.key"
KEY_BYTES = 32


def audit_key(store: Store, given: bytes | None) -> bytes:
    """The key of the chain: the given one, or one that is made in the state directory at the first start."""
    if given is not None:
        if len(given) < KEY_BYTES:
            raise SettingsError(f"--audit-key-file: a key of at least {KEY_BYTES} bytes is needed")
        return given
    path = store.folder / KEY_FILE
    if not path.exists() and _has_rows(store):
        raise SettingsError(f"{path} is gone, and the audit trail cannot go on without it: restore it")
    return write_secret_once(path, token_hex(KEY_BYTES).encode())


def kept_key(folder: Path) -> bytes:
    """The key that a state directory keeps; raises `SettingsError` when it keeps none."""
    try:
        return (folder / KEY_FILE).read_bytes()
    except OSError as error:
        raise SettingsError(f"{folder / KEY_FILE}: {error.strerror}; give --audit-key-file") from error


def _has_rows(store: Store) -> bool:
    try:
        return bool(store.read("SELECT 1 FROM audit LIMIT 1"))
    except StateError:
        return False
