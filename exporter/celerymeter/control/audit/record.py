"""Writing to the trail from a shell, beside a control API that may be running."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celerymeter.control.audit.key import audit_key
from celerymeter.control.audit.trail import Actor, AuditTrail
from celerymeter.control.instances import Instance
from celerymeter.control.store import Store
from celerymeter.control.tokens import Identity


@contextmanager
def open_trail(state_dir: Path, key: bytes | None) -> Iterator[AuditTrail]:
    """The trail of a state directory, for the length of the block; raises `SettingsError`."""
    store, instance = Store(state_dir), Instance(state_dir)
    try:
        yield AuditTrail(store, instance=instance, key=audit_key(store, key))
    finally:
        instance.close()
        store.close()


def record_minted(identity: Identity, *, state_dir: Path, audit_key: bytes | None) -> None:
    """Write that a token was minted, and by whom on which machine."""
    with open_trail(state_dir, audit_key) as trail:
        detail = {"role": identity.role.label, "exp": identity.exp, "by": _user()}
        trail.token(Actor(identity.sub, identity.jti, "shell"), "token.mint", exp=identity.exp, detail=detail)


def _user() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return "unknown"
